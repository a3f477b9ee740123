package main

import (
	"fmt"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	podName      = "io.kubernetes.pod.name"
	podNamespace = "io.kubernetes.pod.namespace"
)

func psCommand(o *options) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "ps", Short: "List this node's containers, without the API", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := dialNode(cmd.Context(), o.place)
			if err != nil {
				return err
			}
			defer n.Close()
			list, err := n.runtime.ListContainers(cmd.Context(), &runtimeapi.ListContainersRequest{})
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
			fmt.Fprintln(w, "CONTAINER\tNAMESPACE\tPOD\tNAME\tATTEMPT\tSTATE\tAGE\tIMAGE")
			sort.Slice(list.Containers, func(i, j int) bool { return list.Containers[i].CreatedAt > list.Containers[j].CreatedAt })
			for _, c := range list.Containers {
				if !all && c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
					continue
				}
				fmt.Fprintf(w, "%.13s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", c.Id, c.Labels[podNamespace], c.Labels[podName], c.Metadata.GetName(),
					c.Metadata.GetAttempt(), strings.ToLower(strings.TrimPrefix(c.State.String(), "CONTAINER_")),
					duration.HumanDuration(time.Since(time.Unix(0, c.CreatedAt))), c.Image.GetImage())
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "ended containers too")
	return cmd
}

func logsCommand(o *options) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "logs [namespace/]pod[/container] | container-id", Short: "Print a container's log, without the API", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := dialNode(cmd.Context(), o.place)
			if err != nil {
				return err
			}
			defer n.Close()
			list, err := n.runtime.ListContainers(cmd.Context(), &runtimeapi.ListContainersRequest{})
			if err != nil {
				return err
			}
			found, err := pick(list.Containers, args[0])
			if err != nil {
				return err
			}
			status, err := n.runtime.ContainerStatus(cmd.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: found.Id})
			if err != nil {
				return err
			}
			return printLog(cmd.Context(), o.place, status.Status.LogPath, follow, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as the log grows")
	return cmd
}

// pick finds the newest container that a word names: an id's beginning, a pod, or pod/container.
func pick(list []*runtimeapi.Container, word string) (*runtimeapi.Container, error) {
	var best *runtimeapi.Container
	names := map[string]bool{}
	for _, c := range list {
		pod, name := c.Labels[podName], c.Metadata.GetName()
		full := c.Labels[podNamespace] + "/" + pod
		byPod := word == pod || word == full
		if !byPod && word != pod+"/"+name && word != full+"/"+name && !strings.HasPrefix(c.Id, word) {
			continue
		}
		if byPod {
			names[name] = true
		}
		if best == nil || c.CreatedAt > best.CreatedAt {
			best = c
		}
	}
	switch {
	case best == nil:
		return nil, fmt.Errorf("no container of this node is named %q: see `keelson ps -a`", word)
	case len(names) > 1:
		return nil, fmt.Errorf("pod %s has %d containers: name one as pod/container", word, len(names))
	}
	return best, nil
}
