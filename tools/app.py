"""Serve a page to try trained weights: it shows probability and heat map of the photographs dropped there.

python tools/app.py --weights output/alexnet
"""

from _cli import Parser, add_runtime_options, add_weights_options, configure_runtime, fraction, port, run


def parse_args():
    parser = Parser(description="Serve a page to try trained weights: drop photographs, see probability and heat map.")
    add_weights_options(parser)
    add = parser.add_argument
    begins = "where the page's threshold begins, of two classes (default: 0.5)"
    add("--threshold", type=fraction, default=0.5, metavar="T", help=begins)
    add("--host", metavar="ADDRESS", help="to listen on; 0.0.0.0 for the whole network (default: 127.0.0.1)")
    add("--port", type=port, metavar="N", help="to listen on (default: the first free one from 7860)")
    add_runtime_options(parser, cache=False)
    return parser.parse_args()


def main():
    args = parse_args()
    configure_runtime(vars(args))

    from palm_cls.core.device import choose_device
    from palm_cls.deploy import app

    choose_device(args.device)
    app.serve_page(args.weights, args.model, args.threshold, args.host, args.port)
    return 0


if __name__ == "__main__":
    run(main)
