"""What a run leaves on disk: where it lies, how it gets there whole, and how it comes back checked.

    layout               every path of a run directory
    atomic               files and directories that are either the old or the new, never between
    disk_errors          what a file system refuses, in words
    safetensors_header   what a safetensors file holds, read without torch
    manifest             what a components directory holds, and its hashes
    components           component files, written and read
    checkpoints          what an exact resume needs, each whole or not there
    lock                 one process at a time
    status               how a run stands
    runs                 finding a run by what a person types
    export               handing a component out, and taking one in
    convert              a foreign torch state dict as a safetensors file
    foreign              what a file is that is none

Importing any of these is cheap: torch and safetensors are imported inside the functions of
`components` and `convert` that hold tensors, and nowhere else.
"""
