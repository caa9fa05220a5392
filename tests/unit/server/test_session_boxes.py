"""Boxes that are not commands, or whose arguments are none; and failures of the daemon."""

from portmapd.channel import commands as c
from portmapd.channel.box import MAX_VALUE, Box
from portmapd.registry.change import ChangeKind
from tests.support.channel_sessions import SessionTestCase


class BoxTests(SessionTestCase):
    """Boxes that are not commands, or whose arguments are none."""

    def said(self, box: Box) -> tuple[bytes, bytes]:
        """Tag and name of the error that answers *box*."""
        answer = self.connection.answer(box)
        assert answer is not None
        self.assertEqual(set(answer), {b"_error", b"_error_code", b"_error_description"})
        answer[b"_error_description"].decode()
        return answer[b"_error"], answer[b"_error_code"]

    def test_unknown_command(self) -> None:
        """A command that does not exist is refused by its name, of which a part is shown."""
        for name in (b"", b"hello", b"Event", b"Overflow", b"StartTLS", b"\xff", b"x" * 60_000):
            said = self.said({b"_ask": b"5", b"_command": name})
            self.assertEqual(said, (b"5", b"UNKNOWN_COMMAND"))

    def test_no_command(self) -> None:
        """A box that asks for nothing is told so."""
        self.assertEqual(self.said({b"_ask": b"5"}), (b"5", b"BAD_ARGUMENTS"))

    def test_no_tag(self) -> None:
        """What does not ask for an answer gets none, but is done."""
        rows = c.REGISTER.arguments[0].kind.encode([("a", "80", 0)])
        for box in (
            {},
            {b"_command": b"Nothing"},
            {b"_command": b"Hello"},
            {b"_command": b"Register", b"services": rows},
            {b"_command": b"Register", b"services": rows},
            {b"_command": b"Watch", b"names": b"x"},
        ):
            self.assertIsNone(self.connection.answer(box))
        self.assertEqual(self.names(), ["a"])

    def test_answers(self) -> None:
        """Boxes that answer what was never asked are passed over."""
        for box in (
            {b"_answer": b"1"},
            {b"_error": b"1", b"_error_code": b"UNKNOWN", b"_error_description": b"x"},
            {b"_answer": b"1", b"services": b""},
        ):
            self.assertIsNone(self.connection.answer(box))

    def test_wrong_types(self) -> None:
        """Every argument that is not of its type is refused."""
        for command in c.COMMANDS.values():
            for argument in command.arguments:
                box = {b"_ask": b"5", b"_command": command.key, argument.key: b"\xff"}
                self.assertEqual(self.said(box), (b"5", b"BAD_ARGUMENTS"))

    def test_tags(self) -> None:
        """A tag comes back as it was, whatever it was."""
        for tag in (b"", b"\0\xff", b"x" * MAX_VALUE):
            for name, key in ((b"Unwatch", b"_answer"), (b"Nothing", b"_error")):
                answer = self.connection.answer({b"_ask": tag, b"_command": name})
                assert answer is not None
                self.assertEqual(answer[key], tag)

    def test_further_arguments(self) -> None:
        """Arguments that a later client may send are passed over."""
        box = {b"_ask": b"5", b"_command": b"Unwatch", b"later": b"\xff"}
        self.assertEqual(self.connection.answer(box), {b"_answer": b"5"})

    def test_our_fault(self) -> None:
        """A failure of the daemon is an answer, and in its log; nothing else is harmed."""
        self.connection.register(("a", "80", 0))

        def fail(changes: object) -> None:
            raise RuntimeError("a follower failed")

        self.connection.watch()
        self.host.registry.follow(fail, ChangeKind.DEREGISTERED)
        rows = c.DEREGISTER.arguments[0].kind.encode([("a", "80")])
        box = {b"_ask": b"5", b"_command": b"Deregister", b"services": rows}
        self.assertEqual(self.said(box), (b"5", b"INTERNAL_ERROR"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.connection.register(("b", "80", 0))
