package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

const (
	unitPath   = "/etc/systemd/system/keelson.service"
	binaryPath = "/usr/local/bin/keelson"
)

// unit keeps pods alive over restarts of the daemon (KillMode=process) and leaves their cgroups to us (Delegate).
const unit = `[Unit]
Description=keelson: a whole Kubernetes in one binary
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
EnvironmentFile=-/etc/default/keelson
ExecStartPre=-/sbin/modprobe -a overlay br_netfilter
ExecStart=%s server%s
Delegate=yes
KillMode=process
LimitNOFILE=1048576
LimitNPROC=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
`

func installCommand(o *options) *cobra.Command {
	var start bool
	cmd := &cobra.Command{
		Use: "install [-- server flags]", Short: "Install the binary and a systemd unit",
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return errors.New("install needs root")
			}
			if err := installBinary(); err != nil {
				return err
			}
			if !systemd() {
				fmt.Fprintf(cmd.OutOrStdout(), "installed %s; there is no systemd here: start it with `keelson server`\n", binaryPath)
				return nil
			}
			extra := ""
			if len(args) > 0 {
				extra = " " + strings.Join(args, " ")
			}
			if err := os.WriteFile(unitPath, fmt.Appendf(nil, unit, binaryPath, extra), 0o644); err != nil {
				return fmt.Errorf("write the unit: %w", err)
			}
			verbs := []string{"daemon-reload", "enable keelson"}
			if start {
				verbs = append(verbs, "restart keelson")
			}
			for _, verb := range verbs {
				if err := systemctl(verb); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "installed %s and %s\n", binaryPath, unitPath)
			return nil
		},
	}
	cmd.Flags().BoolVar(&start, "now", false, "start it too")
	return cmd
}

// installBinary copies the running binary to /usr/local/bin, by rename, so that a running one is not disturbed.
func installBinary() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if self == binaryPath {
		return nil
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	tmp := binaryPath + ".new"
	if err := os.WriteFile(tmp, data, 0o755); err != nil {
		return fmt.Errorf("install the binary: %w", err)
	}
	if err := os.Rename(tmp, binaryPath); err != nil {
		return err
	}
	link := filepath.Join(filepath.Dir(binaryPath), "kubectl")
	if _, err := exec.LookPath("kubectl"); err == nil {
		return nil
	}
	return os.Symlink(binaryPath, link)
}

func systemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

func systemctl(words string) error {
	out, err := exec.Command("systemctl", strings.Fields(words)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", words, err, strings.TrimSpace(string(out)))
	}
	return nil
}
