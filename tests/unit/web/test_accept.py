"""Which form of a listing a caller gets."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.web.accept import choose
from portmapd.web.query import RequestRefused

OFFERED = ("text/csv", "application/json", "text/html")

#: The header field, and what is chosen.
CHOICES = [
    ("", "text/csv"),
    ("*/*", "text/csv"),
    ("application/json", "application/json"),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
    ("text/*;q=0.5, application/json;q=0.4", "text/csv"),
    ("text/csv;q=0.1, */*", "application/json"),
    ("TEXT/HTML ; Q=1", "text/html"),
    ("text/csv;q=loud, text/html;q=0.1", "text/html"),
    ("text/html;level=1", "text/html"),
]


class ChooseTests(SynchronousTestCase):
    """``Accept``."""

    def test_choices(self) -> None:
        """What is wanted most is chosen, and of equals the first that is offered."""
        for accept, chosen in CHOICES:
            self.assertEqual(choose(accept, OFFERED), chosen, accept)

    def test_nothing(self) -> None:
        """If none is wanted, the refusal names what there is."""
        for accept in ("image/png", "*/*;q=0", "nonsense", ",", "text/csv;q=0, image/*"):
            with self.assertRaisesRegex(
                RequestRefused, "ask for text/csv, application/json"
            ) as caught:
                choose(accept, OFFERED)
            self.assertEqual(caught.exception.status, 406)
