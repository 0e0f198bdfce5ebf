package main

import (
	"encoding/json"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// programInfo is what `hadal info` prints.
type programInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	CPUs     int    `json:"cpus"`
	// Modules are the libraries inside, by path.
	Modules map[string]string `json:"modules"`
}

func newInfo() *cobra.Command {
	var target target
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Print what this program is made of, as JSON",
		Long: "Print what this program is made of, as JSON. With a flag that names a running\n" +
			"node, print what that node says of itself instead.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if target.named() {
				client, err := target.open()
				if err != nil {
					return err
				}
				defer client.Close()
				ctx, done := interruptible(cmd)
				defer done()
				info, err := client.Info(ctx)
				if err != nil {
					return target.explain(err)
				}
				return printJSON(cmd, json.RawMessage(info))
			}
			return printJSON(cmd, about())
		},
	}
	target.flags(cmd)
	return cmd
}

func about() programInfo {
	i := programInfo{
		Version: buildVersion(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		CPUs: runtime.NumCPU(), Modules: map[string]string{},
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return i
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			i.Revision = s.Value
		case "vcs.time":
			i.Time = s.Value
		case "vcs.modified":
			i.Modified = s.Value == "true"
		}
	}
	for _, m := range build.Deps {
		i.Modules[m.Path] = m.Version
	}
	return i
}

// printJSON prints v for people and programs.
func printJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
