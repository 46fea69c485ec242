"""Forms: other ways to write a layer, which compute the same function as the plain one and can be faster.

Each form has a file, which says why it exists. The exporters import the files of their runtimes. Whether a form is
faster depends on the device, the runtime and its version, so `ofa-profile` measures it there. `docs/forms.md` lists the
gains.
"""
