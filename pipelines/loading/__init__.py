"""Reading the rows of splits in the order of ``transforms/loading``, without torch or grain."""
