"""The parts of compare.py: workloads, engines and their processes, machine, targets, report."""
