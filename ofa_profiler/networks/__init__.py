"""What is measured: ops, layers, graphs, architectures and their parameters. numpy only, but for `torch_modules`."""
