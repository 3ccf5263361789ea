"""`python -m idgr`: the same front door as the `idgr` command."""

from idgr.cli.main import main

if __name__ == "__main__":
    main()
