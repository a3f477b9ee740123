// Package atomicdir keeps a directory of small files whose whole content changes at once, in the layout that Kubernetes'
// users and tools know:
//
//	<dir>/..2026_11_23_10_00_00.123456789/key   the files of one revision
//	<dir>/..data -> ..2026_11_23_10_00_00.123456789
//	<dir>/key -> ..data/key                     what users read
//
// A reader sees the old revision or the new one, never a mixture: the switch is one rename of ..data. Whatever a crash leaves
// is either invisible or put right by the next Write.
//
// The directory may be in a container's hands, so every step is made below an opened root (os.Root): a file or folder which
// was replaced by a symlink leads nowhere else.
package atomicdir
