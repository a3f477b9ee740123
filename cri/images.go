package cri

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"keelson.dev/keelson/image"
)

// imageRef is the digested name of an image, its id if it has none.
func imageRef(img image.Image) string {
	if len(img.RepoDigests) > 0 {
		return img.RepoDigests[0]
	}
	return img.ID
}

// wireImage describes an image. A user that is a number is given as Uid, a name
// as Username; the group is left out, as the API has no field for it.
func wireImage(img image.Image) *runtimeapi.Image {
	out := &runtimeapi.Image{
		Id: img.ID, RepoTags: img.RepoTags, RepoDigests: img.RepoDigests, Size: img.Size, Pinned: img.Pinned,
		Spec: &runtimeapi.ImageSpec{},
	}
	user, _, _ := strings.Cut(img.Config.User, ":")
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		out.Uid = &runtimeapi.Int64Value{Value: uid}
	} else {
		out.Username = user
	}
	return out
}

// ListImages lists images; a filter that names one gives that one or none.
func (s *Server) ListImages(_ context.Context, req *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: s.listImages(req.GetFilter())}, nil
}

func (s *Server) listImages(f *runtimeapi.ImageFilter) []*runtimeapi.Image {
	if ref := f.GetImage().GetImage(); ref != "" {
		img, err := s.deps.Images.Get(ref)
		if err != nil {
			return nil
		}
		return []*runtimeapi.Image{wireImage(img)}
	}
	var out []*runtimeapi.Image
	for _, img := range s.deps.Images.List() {
		out = append(out, wireImage(img))
	}
	return out
}

// ImageStatus describes one image; one that is not there is no error.
func (s *Server) ImageStatus(_ context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	ref := req.GetImage().GetImage()
	if ref == "" {
		return nil, invalid("no image named")
	}
	img, err := s.deps.Images.Get(ref)
	if missing(err) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	resp := &runtimeapi.ImageStatusResponse{Image: wireImage(img)}
	if req.GetVerbose() {
		resp.Info = infoMap(map[string]any{"imageSpec": map[string]any{"config": img.Config, "architecture": img.Architecture, "os": img.OS}})
	}
	return resp, nil
}

// PullImage fetches an image and gives its id.
func (s *Server) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	ref := req.GetImage().GetImage()
	if ref == "" {
		return nil, invalid("no image named")
	}
	if err := s.checkHandler(req.GetImage().GetRuntimeHandler()); err != nil {
		return nil, err
	}
	var auth *image.Auth
	if a := req.GetAuth(); a != nil {
		auth = &image.Auth{
			Username: a.GetUsername(), Password: a.GetPassword(), Auth: a.GetAuth(), ServerAddress: a.GetServerAddress(),
			IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
		}
	}
	img, err := s.deps.Images.Pull(ctx, ref, auth)
	if errors.Is(err, image.ErrSignature) { // the kubelet knows it by how it begins
		return nil, fmt.Errorf("%w: pull %s: %w", crierrors.ErrSignatureValidationFailed, ref, err)
	}
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", ref, err)
	}
	return &runtimeapi.PullImageResponse{ImageRef: img.ID}, nil
}

// RemoveImage forgets an image under all its names. It is idempotent.
func (s *Server) RemoveImage(ctx context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	ref := req.GetImage().GetImage()
	if ref == "" {
		return nil, invalid("no image named")
	}
	if err := s.deps.Images.Remove(ctx, ref); err != nil && !missing(err) {
		return nil, fmt.Errorf("remove image %s: %w", ref, err)
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo tells what images, and the containers' writable layers on the same
// filesystem, take up.
func (s *Server) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	u, err := s.deps.Images.Usage()
	if err != nil {
		return nil, fmt.Errorf("image filesystem: %w", err)
	}
	fs := []*runtimeapi.FilesystemUsage{filesystem(u)}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: fs, ContainerFilesystems: fs}, nil
}

func filesystem(u image.Usage) *runtimeapi.FilesystemUsage {
	return &runtimeapi.FilesystemUsage{
		Timestamp: time.Now().UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: u.Path},
		UsedBytes: num(u.Bytes), InodesUsed: num(u.Inodes),
	}
}

func num(v uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: v} }
