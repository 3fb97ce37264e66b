"""A process that imports everything once and forks for each program: most programs take less time than the imports.

A program starts as in an interpreter of its own: in the main thread of a process that has no other thread, no socket of
the library and no descriptor beside its standard streams. It also ends like that, because the fork returns from here.
"""

import importlib
import json
import os
import socket

from multicast_expert.testing.namespaces import set_network_namespace

FILES = ("closing", "ending", "everywhere", "refusing", "scarcity")


def serve(descriptor: int) -> list[str]:
    """Fork for each request until the requester is gone. Return in the child, with the words of its request.

    A request has descriptors with it: standard output, standard error and a network namespace. Its answer is the
    process number; a second message, which the requester sends after the program's end, is answered by the status.
    """
    # Not trio, which few programs use: a child that ends takes its time to give up each module.
    for file in FILES:
        importlib.import_module(f"interruptions.programs.{file}")
    requests = socket.socket(fileno=descriptor)
    while True:
        request, descriptors, *_ = socket.recv_fds(requests, 4096, 3)
        if not request:
            os._exit(0)
        pid = os.fork()
        if not pid:
            requests.close()
            begin(*descriptors)
            words: list[str] = json.loads(request)
            return words
        for each in descriptors:
            os.close(each)
        requests.send(b"%d" % pid)
        requests.recv(1)
        requests.send(b"%d" % os.waitpid(pid, 0)[1])


def begin(output: int, errors: int, network: int) -> None:
    """Make this process what the requester would have started."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(errors, 2)
    set_network_namespace(network)
    for each in (output, errors, network):
        os.close(each)
