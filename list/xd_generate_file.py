"""Make train.csv and test.csv of XD-Violence, like generate_file.py --dataset xd."""

from generate_file import main, run_command

if __name__ == "__main__":
    run_command(lambda: main("xd"))
