"""Make gt.npy of XD-Violence, like generate_gt.py --dataset xd."""

from generate_gt import main, run_command

if __name__ == "__main__":
    run_command(lambda: main("xd"))
