"""`python -m jobs` and the console command `tutelage`."""

import os
import signal
import sys

from jobs.search_path import find_strangers, protect_search_path


def main() -> None:
    """Run a command, once it is sure whose modules it would import."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # what follows takes seconds to import
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        protect_search_path()
        strangers = find_strangers(os.environ.get("PYTHONPATH", ""))
        if strangers:
            print(f"tutelage: {strangers[0]}", file=sys.stderr)
            sys.exit(2)
        from jobs.commands import main as run_command

        run_command()
    except KeyboardInterrupt:
        print("tutelage: interrupted; run the same command again", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
