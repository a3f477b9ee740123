package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	componentcli "k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// kubectl runs kubectl on our arguments and returns its exit code. direct: we were called by the name kubectl.
// Without KUBECONFIG and with no --kubeconfig of the user's, this node's kubeconfig is taken.
func kubectl(direct bool) int {
	args := os.Args
	if !direct {
		args = append([]string{"kubectl"}, os.Args[2:]...)
	}
	if os.Getenv("KUBECONFIG") == "" {
		var o options
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.paths(flags)
		if err := o.configure(flags, os.Environ()); err != nil {
			fmt.Fprintln(os.Stderr, "keelson:", err)
		}
		own := o.place.kubeconfig()
		if _, err := os.Stat(own); err == nil {
			os.Setenv("KUBECONFIG", own)
		}
	}
	os.Args = args                                    // kubectl's completion and plugins look here, and cobra, unless an alias of the user's gives it others
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(args)) // before flags are parsed: plugins and preferences log too; a wrong value is told then
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50).WithWarningPrinter(streams)
	command := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     args,
		ConfigFlags:   flags,
		IOStreams:     streams,
	})
	if err := componentcli.RunNoErrOutput(command); err != nil {
		cmdutil.CheckErr(err) // says it as kubectl does, and ends the process
		return 1
	}
	return 0
}
