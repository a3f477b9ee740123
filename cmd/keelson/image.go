package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func imageCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Aliases: []string{"images"}, Short: "This node's images, without the API"}
	cmd.AddCommand(imageList(o), imagePull(o), imageRemove(o), imageImport(o), imageExport(o), imageVerify(o))
	return cmd
}

func imageList(o *options) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := dialNode(cmd.Context(), o.place)
			if err != nil {
				return err
			}
			defer n.Close()
			list, err := n.images.ListImages(cmd.Context(), &runtimeapi.ListImagesRequest{})
			if err != nil {
				return err
			}
			var rows []string
			for _, i := range list.Images {
				names := i.RepoTags
				if len(names) == 0 {
					names = i.RepoDigests
				}
				for _, name := range names {
					rows = append(rows, fmt.Sprintf("%s\t%.19s\t%s", name, i.Id, resource.NewQuantity(int64(i.Size), resource.BinarySI)))
				}
			}
			sort.Strings(rows)
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
			fmt.Fprintln(w, "IMAGE\tID\tSIZE")
			fmt.Fprintln(w, strings.Join(rows, "\n"))
			return w.Flush()
		}}
}

func imagePull(o *options) *cobra.Command {
	var user string
	cmd := &cobra.Command{Use: "pull image", Short: "Pull an image", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: args[0]}}
			if user != "" {
				name, password, ok := strings.Cut(user, ":")
				if !ok {
					return fmt.Errorf("--user %s: a password is missing: --user NAME:PASSWORD", user)
				}
				request.Auth = &runtimeapi.AuthConfig{Username: name, Password: password}
			}
			n, err := dialNode(cmd.Context(), o.place)
			if err != nil {
				return err
			}
			defer n.Close()
			got, err := n.images.PullImage(cmd.Context(), request)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), got.ImageRef)
			return err
		}}
	cmd.Flags().StringVarP(&user, "user", "u", "", "name:password for the registry")
	return cmd
}

func imageRemove(o *options) *cobra.Command {
	return &cobra.Command{Use: "rm image...", Short: "Remove images", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := dialNode(cmd.Context(), o.place)
			if err != nil {
				return err
			}
			defer n.Close()
			for _, name := range args {
				spec := &runtimeapi.ImageSpec{Image: name}
				have, err := n.images.ImageStatus(cmd.Context(), &runtimeapi.ImageStatusRequest{Image: spec})
				if err != nil {
					return err
				}
				if have.Image == nil {
					return fmt.Errorf("no image %s on this node: see `keelson image ls`", name)
				}
				if _, err := n.images.RemoveImage(cmd.Context(), &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
					return err
				}
			}
			return nil
		}}
}

func imageImport(o *options) *cobra.Command {
	return &cobra.Command{Use: "import file...", Short: "Load OCI layouts or docker archives (tar, gz, zst; - is standard input)", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				in := io.NopCloser(cmd.InOrStdin())
				if name != "-" {
					f, err := os.Open(name)
					if err != nil {
						return err
					}
					in = f
				}
				err := adminCall(cmd.Context(), o.place, http.MethodPost, "/images/import", in, cmd.OutOrStdout())
				in.Close()
				if err != nil {
					return fmt.Errorf("import %s: %w", name, err)
				}
			}
			return nil
		}}
}

func imageExport(o *options) *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "export image... -o file", Short: "Write images as an OCI layout (tar)", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"ref": args}
			path := "/images/export?" + query.Encode()
			if out == "-" {
				return adminCall(cmd.Context(), o.place, http.MethodGet, path, nil, cmd.OutOrStdout())
			}
			f, err := os.Create(out)
			if err != nil {
				return err
			}
			if err := adminCall(cmd.Context(), o.place, http.MethodGet, path, nil, f); err != nil {
				f.Close()
				os.Remove(out)
				return err
			}
			return f.Close()
		}}
	cmd.Flags().StringVarP(&out, "output", "o", "-", "the file to write; - is standard output")
	return cmd
}

func imageVerify(o *options) *cobra.Command {
	return &cobra.Command{Use: "verify [image...]", Short: "Read every stored byte of images, or of all, again and compare it with its digest",
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"ref": args}
			return adminCall(cmd.Context(), o.place, http.MethodPost, "/images/verify?"+query.Encode(), nil, cmd.OutOrStdout())
		}}
}
