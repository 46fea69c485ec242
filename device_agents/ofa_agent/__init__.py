"""The agent's code. `agent.py` beside this folder starts it; both travel to the device together.

    main.py         the command line
    kit.py          the folder with the models; wheels.py: the runtime that it may bring along
    supervisor.py   decides what is measured next; with progress.py, reference.py (drift), medians.py (intervals)
    visiting.py     has the worker run models; workers.py: the ways to start a worker; serving.py: the worker itself
    runtimes/       one file per runtime; inputs.py: the data that models are given
    machine.py      the machine that is measured; facts.py, heat.py, cores.py, clocks.py, reading.py: about this one
    results.py      the file of results; lock.py; host.py: who started the agent
    errors.py       what can go wrong

Standard library and runtime only, Python 3.7 or newer, relative imports.
"""
