"""Make train.csv and test.csv of ShanghaiTech, like generate_file.py --dataset shang."""

from generate_file import main, run_command

if __name__ == "__main__":
    run_command(lambda: main("shang"))
