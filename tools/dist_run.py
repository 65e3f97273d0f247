# Copyright (c) mmfishnet authors. All rights reserved.
"""torch.distributed.run for dist_run.sh, which ends with what is wrong.

The launcher itself ends with a traceback and a report, some 35 lines, and
what the processes said is out of sight.
"""
import logging
import os
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main():
    logging.disable(logging.ERROR)
    try:
        run.main(sys.argv[1:])
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        message = first.message
        if isinstance(message, dict):  # of an exception
            message = f'{message["message"]} (its traceback is above)'
        # What a user can put right, the first process has said.
        if first.exitcode < 0 or os.path.isfile(first.error_file):
            print(f'error: rank {rank} ended this job: {message}',
                  file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return 0


if __name__ == '__main__':
    sys.exit(main())
