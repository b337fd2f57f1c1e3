"""The command ``melmill``, and ``python -m melmill``."""

from melmill.pipelines.run.interruption import ending_in_one_line


def main() -> None:
    """Run the command line; signals are heard while it is still being imported."""
    with ending_in_one_line():
        from melmill.pipelines.cli.pipeline_commands import main as run

        run()


if __name__ == "__main__":
    main()
