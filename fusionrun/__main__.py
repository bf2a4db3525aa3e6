"""`python -m fusionrun` is `fusionrun`."""

from fusionrun.cli.main import main

if __name__ == "__main__":
    main()
