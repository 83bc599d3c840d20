"""`python -m jobs` and the console command `tutelage`."""

from jobs.commands import main

if __name__ == "__main__":
    main()
