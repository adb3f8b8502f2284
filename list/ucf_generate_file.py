"""Make train.csv and test.csv of UCF-Crime, like generate_file.py --dataset ucfcrime."""

from generate_file import main, run_command

if __name__ == "__main__":
    run_command(lambda: main("ucfcrime"))
