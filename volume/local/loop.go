package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const loopTries = 16 // races for a free device that are lost before giving up

// Attach makes a disk image a loop device and returns its path; one that is attached already stays.
func Attach(image string) (string, error) {
	f, err := os.OpenFile(image, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if dev, err := attached(f); dev != "" || err != nil {
		return dev, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("loop device: %w", err)
	}
	defer control.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("loop device: %w", err)
		}
		path := "/dev/loop" + strconv.Itoa(n)
		err = configure(path, f)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return "", fmt.Errorf("loop device %s: %w", path, err)
		}
	}
	return "", errors.New("loop device: others take each free one first")
}

func configure(path string, image *os.File) error {
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	return unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(image.Fd())})
}

// Detach undoes Attach; without one it does nothing. A device that is still open goes with its last user.
func Detach(image string) error {
	f, err := os.OpenFile(image, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("loop device: %w", err)
	}
	defer f.Close()
	path, err := attached(f)
	if path == "" || err != nil {
		return err
	}
	dev, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("loop device: %w", err)
	}
	defer dev.Close()
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return nil
}

// refresh makes the loop device of an image, if there is one, as large as the image.
func refresh(image string) error {
	f, err := os.OpenFile(image, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	path, err := attached(f)
	if path == "" || err != nil {
		return err
	}
	dev, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("loop device: %w", err)
	}
	defer dev.Close()
	return unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0)
}

// attached is the loop device of a file, "" without one: found by the file itself, not by its name.
func attached(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	used, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, u := range used {
		path := filepath.Join("/dev", filepath.Base(filepath.Dir(filepath.Dir(u))))
		dev, err := os.Open(path)
		if err != nil {
			continue // it was taken away meanwhile
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		dev.Close()
		if err == nil && info.Inode == st.Ino && info.Device == st.Dev {
			return path, nil
		}
	}
	return "", nil
}

// DetachAll undoes every Attach of an image in a folder; a missing folder is fine.
func DetachAll(root string) error {
	images, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("loop devices of %s: %w", root, err)
	}
	var errs []error
	for _, i := range images {
		if i.Type().IsRegular() {
			errs = append(errs, Detach(filepath.Join(root, i.Name())))
		}
	}
	return errors.Join(errs...)
}
