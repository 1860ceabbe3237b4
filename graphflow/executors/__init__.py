"""Computing instances of nodes: on a device of this process, with models, batches and a way out of full memory."""
