"""A gate for tests of routes: it believes what a header says."""

from lodestream.apis.problems import ProblemError


class Gate:
    """Takes the principal that `x-name` names among those that are known."""

    def __init__(self, known):
        self.known = known

    def connect(self, request):
        """Let everybody as far as that."""

    async def arrive(self, request):
        return self.principal(request)

    def principal(self, request):
        self.connect(request)
        if (name := request.headers.get("x-name")) is None:
            raise ProblemError(401, "say who you are")
        return self.known[name]


class Picky(Gate):
    """Lets in nobody who calls the server by a wrong name."""

    def connect(self, request):
        if request.headers.get("host") == "evil":
            raise ProblemError(421, "wrong")
