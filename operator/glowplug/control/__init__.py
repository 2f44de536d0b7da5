"""Control: the queue, the few lines that join observe, decide and act, and the process itself."""
