"""Started by a Flex Template's launcher. Nothing else is in here: Beam pickles ``__main__``."""

from melmill.pipelines.cli.flex_template import main

if __name__ == "__main__":
    main()
