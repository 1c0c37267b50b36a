package main

import (
	"fmt"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

// parseOptions reads the `runtime.options` of a Pulumi.yaml or PulumiPolicy.yaml: virtualenv (a path relative
// to that file), toolchain (pip, poetry or uv) and typechecker (mypy or pyright).
// A plugin that names no virtualenv gets `venv`; a program gets the interpreter on PATH.
func parseOptions(info *pulumirpc.ProgramInfo, isPlugin bool) (toolchain.PythonOptions, error) {
	options := toolchain.PythonOptions{Root: info.GetRootDirectory(), ProgramDir: info.GetProgramDirectory()}
	for key, value := range info.GetOptions().AsMap() {
		text, isText := value.(string)
		if !isText && (key == "virtualenv" || key == "toolchain" || key == "typechecker") {
			return options, fmt.Errorf("runtime option %s must be a string, not %v", key, value)
		}
		switch key {
		case "virtualenv":
			options.Virtualenv = text
		case "toolchain":
			switch text {
			case "pip":
				options.Toolchain = toolchain.Pip
			case "poetry":
				options.Toolchain = toolchain.Poetry
			case "uv":
				options.Toolchain = toolchain.Uv
			default:
				return options, fmt.Errorf("runtime option toolchain is %q: use pip, poetry or uv", text)
			}
		case "typechecker":
			switch text {
			case "mypy":
				options.Typechecker = toolchain.TypeCheckerMypy
			case "pyright":
				options.Typechecker = toolchain.TypeCheckerPyright
			default:
				return options, fmt.Errorf("runtime option typechecker is %q: use mypy or pyright", text)
			}
		}
	}
	usesPip := options.Toolchain == toolchain.Pip || options.Toolchain == toolchain.Auto
	if isPlugin && usesPip && options.Virtualenv == "" {
		options.Virtualenv = "venv"
	}
	return options, nil
}

// resolve reads the options and finds the Python environment they name.
func resolve(info *pulumirpc.ProgramInfo, isPlugin bool) (toolchain.PythonOptions, toolchain.Toolchain, error) {
	options, err := parseOptions(info, isPlugin)
	if err != nil {
		return options, nil, err
	}
	env, err := toolchain.ResolveToolchain(options)
	return options, env, err
}
