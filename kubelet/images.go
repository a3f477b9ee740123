package kubelet

import (
	"context"
	"maps"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/nodestatus"
)

// imageEvery is how often the fill of the image filesystem is looked at.
const imageEvery = 5 * time.Minute

// imageUses remembers the use of images. A channel of one holds the table: whoever has it may use it.
type imageUses chan map[string]ImageUse

func newImageUses() imageUses {
	c := make(imageUses, 1)
	c <- map[string]ImageUse{}
	return c
}

func (c imageUses) with(f func(map[string]ImageUse)) {
	m := <-c
	f(m)
	c <- m
}

// ImageUse is when an image was first seen and last found in use.
type ImageUse struct{ First, Used time.Time }

// Removable picks the images to remove until need bytes are freed: unused ones, least recently used first, none that
// is pinned or younger than age. It is pure.
func Removable(all []*runtimeapi.Image, inUse map[string]bool, uses map[string]ImageUse, need uint64, age time.Duration, now time.Time) []*runtimeapi.Image {
	var idle []*runtimeapi.Image
	for _, i := range all {
		if !i.GetPinned() && !inUse[i.GetId()] && now.Sub(uses[i.GetId()].First) >= age {
			idle = append(idle, i)
		}
	}
	slices.SortStableFunc(idle, func(a, b *runtimeapi.Image) int {
		return uses[a.GetId()].Used.Compare(uses[b.GetId()].Used)
	})
	var freed uint64
	for n, i := range idle {
		if freed >= need {
			return idle[:n]
		}
		freed += i.GetSize()
	}
	return idle
}

// collectImages removes unused images when the image filesystem is fuller than the high mark, down to the low one.
func (k *Kubelet) collectImages(ctx context.Context) {
	total, free, ok := k.imageDisk(ctx)
	if !ok || total == 0 {
		return
	}
	used := 100 - int(free*100/total)
	need := uint64(0)
	if used >= k.cfg.ImageGC.High {
		need = uint64(used-k.cfg.ImageGC.Low) * total / 100
	}
	k.removeImages(ctx, need)
}

// imageDisk is the size of the filesystem of images, in bytes.
func (k *Kubelet) imageDisk(ctx context.Context) (total, free uint64, ok bool) {
	info, err := k.parts.cri.Image.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		return 0, 0, false
	}
	total, free, _, _, err = nodestatus.Disk(info.GetImageFilesystems()[0].GetFsId().GetMountpoint())
	return total, free, err == nil
}

// removeImages notes which images are in use and removes unused ones until need bytes are freed.
func (k *Kubelet) removeImages(ctx context.Context, need uint64) {
	list, err := k.parts.cri.Image.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return
	}
	containers, err := k.parts.cri.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return
	}
	inUse := map[string]bool{}
	for _, c := range containers.GetContainers() {
		inUse[c.GetImageRef()], inUse[c.GetImageId()], inUse[c.GetImage().GetImage()] = true, true, true
	}
	now := time.Now()
	var gone []*runtimeapi.Image
	k.images.with(func(uses map[string]ImageUse) {
		maps.DeleteFunc(uses, func(id string, _ ImageUse) bool {
			return !slices.ContainsFunc(list.GetImages(), func(i *runtimeapi.Image) bool { return i.GetId() == id })
		})
		for _, i := range list.GetImages() {
			u, known := uses[i.GetId()]
			if !known {
				u.First = now
			}
			if inUse[i.GetId()] {
				u.Used = now
			}
			uses[i.GetId()] = u
		}
		if need > 0 {
			gone = Removable(list.GetImages(), inUse, uses, need, k.cfg.ImageGC.Age, now)
		}
	})
	for _, i := range gone {
		_, err := k.parts.cri.Image.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: i.GetId()}})
		if err != nil {
			k.log.Warn("remove unused image", "image", i.GetId(), "err", criclient.Message(err))
			continue
		}
		k.log.Info("removed an unused image", "image", i.GetId(), "tags", i.GetRepoTags(), "bytes", i.GetSize())
	}
}
