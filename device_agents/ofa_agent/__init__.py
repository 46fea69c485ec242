"""The code of the agent. `agent.py` beside this folder starts it. Both are sent to the device together.

    main.py         the command line
    kit.py          the folder with the models; wheels.py: the runtime in a kit
    supervisor.py   selects the next model; progress.py: its progress; reference.py: drift; medians.py: intervals
    visiting.py     runs models in a worker; workers.py: the ways to start a worker; serving.py: the worker process
    runtimes/       one file per runtime; inputs.py: the input data of models
    machine.py      the measured machine; facts.py, heat.py, cores.py, clocks.py, reading.py: facts of this machine
    results.py      the results file; lock.py: the lock; host.py: the program that started the agent
    errors.py       the errors

Only the standard library and the runtime, Python 3.7 or newer, relative imports.
"""
