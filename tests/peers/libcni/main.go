// A client of libcni, the library by which container runtimes call plugins: one call, which it reads from stdin as JSON.
// What it says on stdout is the result of an ADD; an error goes to stderr, and the exit status is 1.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
)

type call struct {
	Command      string                 // ADD, CHECK or DEL
	List         json.RawMessage        // a network configuration list
	Path         []string               // where plugins are
	CacheDir     string                 // where results are kept between calls
	ContainerID  string                 //
	NetNS        string                 //
	IfName       string                 //
	Args         [][2]string            // for CNI_ARGS
	Capabilities map[string]interface{} // for runtimeConfig, as each plugin's "capabilities" asks for it
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var call call
	if err := json.NewDecoder(os.Stdin).Decode(&call); err != nil {
		return fmt.Errorf("read the call: %w", err)
	}
	list, err := libcni.ConfListFromBytes(call.List)
	if err != nil {
		return err
	}
	runtime := &libcni.RuntimeConf{
		ContainerID:    call.ContainerID,
		NetNS:          call.NetNS,
		IfName:         call.IfName,
		Args:           call.Args,
		CapabilityArgs: call.Capabilities,
	}
	client := libcni.NewCNIConfigWithCacheDir(call.Path, call.CacheDir, nil)
	switch call.Command {
	case "ADD":
		result, err := client.AddNetworkList(context.Background(), list, runtime)
		if err != nil {
			return err
		}
		return result.PrintTo(os.Stdout)
	case "CHECK":
		return client.CheckNetworkList(context.Background(), list, runtime)
	case "DEL":
		return client.DelNetworkList(context.Background(), list, runtime)
	default:
		return fmt.Errorf("command %q", call.Command)
	}
}
