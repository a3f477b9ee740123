package crisuite

import (
	"log/slog"
	"os"
	"testing"
)

func TestFirst(t *testing.T) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	n := NewNode(t, log)
	c, err := Dial(n.Socket)
	if err != nil {
		t.Fatal(err)
	}
	b := &Bench{t, c, Target{Socket: n.Socket, Image: BusyboxImage, CgroupParent: n.Cgroup, LogDir: n.Dir + "/logs", Processes: true}}
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	ctr := b.StartIn(pod, pc, b.ContainerConfig("echo hello; exec sleep 1000"))
	t.Log(b.Sh(ctr, "id; ps; hostname; cat /etc/resolv.conf; ip a"))
	t.Log(b.Status(ctr))
}
