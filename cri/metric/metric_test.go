package metric

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/cgroup"
)

// full has every optional part.
func full() Sample {
	return Sample{
		Labels: Labels{"c", "id", "img", "n", "ns", "p"}, Started: time.Unix(5, 0), Seen: time.Unix(9, 0),
		Stats:   cgroup.Stats{PSI: map[string]cgroup.PSI{"cpu": {Some: cgroup.Pressure{Total: 3e6}}, "memory": {}, "io": {}}},
		Extra:   Extra{OpenFilesSoft: 7, Hugetlb: []Hugetlb{{"2MB", 1, 2}}, Devices: []Device{{"8", "0", 1, 2, 3, 4}}},
		Limits:  &runtimeapi.LinuxContainerResources{CpuQuota: 5},
		Disk:    &Disk{Device: "/d", Usage: 1},
		Network: []Interface{{Name: "eth0", RxBytes: 11}},
	}
}

func TestEveryMetricFitsItsDescriptor(t *testing.T) {
	keys := map[string]int{}
	for _, d := range Descriptors() {
		if _, twice := keys[d.GetName()]; twice || d.GetHelp() == "" {
			t.Errorf("descriptor %s is there twice or has no help", d.GetName())
		}
		keys[d.GetName()] = len(d.GetLabelKeys())
	}
	seen := map[string]uint64{}
	for _, m := range Collect(full()) {
		n, ok := keys[m.GetName()]
		if !ok || n != len(m.GetLabelValues()) {
			t.Errorf("%s has %d label values, its descriptor %d keys (known: %v)", m.GetName(), len(m.GetLabelValues()), n, ok)
		}
		seen[m.GetName()] = m.GetValue().GetValue()
	}
	if len(seen) != len(keys) {
		t.Errorf("%d of %d metrics have a value", len(seen), len(keys))
	}
	for name, want := range map[string]uint64{
		"container_pressure_cpu_waiting_seconds_total": 3, "container_network_receive_bytes_total": 11, "container_start_time_seconds": 5,
		"container_spec_cpu_shares": 1024, "container_fs_writes_total": 4,
	} {
		if seen[name] != want {
			t.Errorf("%s is %d, want %d", name, seen[name], want)
		}
	}
}

func TestParsers(t *testing.T) {
	for name, c := range map[string]struct{ got, want any }{
		"io.stat": {parseIOStat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\nrubbish\n8:16 \n"), []Device{{"8", "0", 1, 2, 3, 4}}},
		"blkio": {parseBlkio("8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n", "8:0 Read 3\n8:0 Write 4\n254:1 Read 9\n"),
			[]Device{{"8", "0", 1, 2, 3, 4}, {"254", "1", 0, 0, 9, 0}}},
		"net/dev": {ParseNetDev("Inter-|\n face |\n    lo: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n  eth0:  10 11 12 13 0 0 0 0 20 21 22 23 0 0 0 0\n bad: 1\n"),
			[]Interface{{"eth0", 10, 11, 12, 13, 20, 21, 22, 23}}},
		"limits": {openFiles("Limit   Soft\nMax open files            1024                 4096                 files\n"), uint64(1024)},
		"keyed":  {keyed("a 1\nab 2\nb x\n", "ab"), uint64(2)},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, c.got, c.want)
		}
	}
}

func TestReadExtraOfBothHierarchies(t *testing.T) {
	root := t.TempDir()
	put := func(path, text string) {
		p := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("memory/pod/memory.max_usage_in_bytes", "7\n")
	put("memory/pod/memory.stat", "total_mapped_file 8\n")
	put("pids/pod/pids.current", "3\n")
	put("hugetlb/pod/hugetlb.2MB.usage_in_bytes", "4\n")
	put("hugetlb/pod/hugetlb.2MB.rsvd.usage_in_bytes", "5\n")
	e := ReadExtra(root, "/pod", false)
	if e.MemoryPeak != 7 || e.MemoryMapped != 8 || e.Threads != 3 || len(e.Hugetlb) != 1 || e.Hugetlb[0].Usage != 4 {
		t.Errorf("v1: %+v", e)
	}
	put("two/memory.peak", "9\n")
	put("two/memory.events", "low 0\nmax 5\n")
	put("two/memory.stat", "kernel 6\nfile_mapped 2\n")
	e = ReadExtra(root, "/two", true)
	if e.MemoryPeak != 9 || e.MemoryFails != 5 || e.MemoryKernel != 6 || e.MemoryMapped != 2 {
		t.Errorf("v2: %+v", e)
	}
	if e := ReadExtra(root, "/gone", true); !reflect.DeepEqual(e, Extra{}) {
		t.Errorf("of nothing: %+v", e)
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("8:0 rbytes=1\neth0: 1 2 3")
	f.Fuzz(func(_ *testing.T, text string) {
		parseIOStat(text)
		parseBlkio(text, text)
		ParseNetDev(text)
		openFiles(text)
	})
}
