"""The command ``octavo bench``: latency, throughput and startup, with vLLM's options and figures.

Each benchmark is a module with ``DESCRIPTION``, ``add_arguments(parser)`` and
``run(arguments) -> int``; ``command`` lists them.
"""
