"""Make gt.npy of ShanghaiTech, like generate_gt.py --dataset shang."""

from generate_gt import main, run_command

if __name__ == "__main__":
    run_command(lambda: main("shang"))
