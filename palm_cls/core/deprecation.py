"""Former names of arguments, which go on working for one release."""

import functools


def renamed_arguments(**names):
    """Let a function take arguments under former names, too.

    Args:
        names: {former name: present name}.
    """

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            return function(*args, **{names.get(name, name): value for name, value in kwargs.items()})

        return call

    return decorate
