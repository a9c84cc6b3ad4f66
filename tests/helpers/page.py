"""What an HTML page holds, without a browser."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """What a page holds: tags [(name, attributes)], and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]
