"""Everything that only a GPU can say, part by part, on a machine with CUDA and no network: `make gpu`.

Each part runs in a process of its own with its own time limit (`supervise`), makes its models itself, and writes each
finding the moment it is known; a part that fails, hangs or is killed ends no other. `plan` lists them.
"""
