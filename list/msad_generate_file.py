"""Make train.csv and test.csv of MSAD, like generate_file.py --dataset msad."""

from generate_file import main, run_command

if __name__ == "__main__":
    run_command(lambda: main("msad"))
