"""The command line: a surface on the engine. `stepwell --help` lists the commands."""
