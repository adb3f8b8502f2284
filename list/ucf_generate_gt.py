"""Make gt.npy of UCF-Crime, like generate_gt.py --dataset ucfcrime."""

from generate_gt import main, run_command

if __name__ == "__main__":
    run_command(lambda: main("ucfcrime"))
