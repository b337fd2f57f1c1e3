"""Start a job from a Flex Template's launcher. Keep this file small: Beam pickles ``__main__``."""

from melmill.pipelines.cli.flex_template import main

if __name__ == "__main__":
    main()
