"""Make gt.npy of MSAD, like generate_gt.py --dataset msad."""

from generate_gt import main, run_command

if __name__ == "__main__":
    run_command(lambda: main("msad"))
