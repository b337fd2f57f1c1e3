"""The command ``melmill``, and ``python -m pipelines``."""

from pipelines.interruption import ending_in_one_line


def main() -> None:
    """Run the command line; signals are heard while it is still being imported."""
    with ending_in_one_line():
        from pipelines.cli import main as run

        run()


if __name__ == "__main__":
    main()
