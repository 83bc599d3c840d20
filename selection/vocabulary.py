"""Words around a number: those without meaning for it, and those that change its meaning."""


def words(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


# words that say nothing of what is counted, or nothing that changes the number
EMPTY = words(
    """
    a an the of in on at for from with and total all together altogether overall left remaining remain
    remains each every more extra additional additionally full whole old older new tall long wide deep
    high away apart now today tomorrow then there here only just still again too also that which is are
    was were will be been he she it they we you his her its their our your my this these those who has
    had have to go so far as well worth by after before during since until than last next first second
    exactly precisely out spent earned saved needed used sold bought made given taken possible different
    distinct unique required sum result
    """
)
# a number beside one of these is not the number meant, or not only this one
TELLING = words(
    """
    not no nor or but either neither maybe perhaps possibly probably likely might could may if unless
    unknown unclear uncertain unsure guess guessing wrong incorrect false impossible cannot can't isn't
    max minimum maximum estimate estimated placeholder suppose assume assuming
    aren't wasn't never without less least most fewer under below above over about around roughly nearly
    almost approximately up between plus minus times divided multiplied squared cubed square-root root
    power factorial choose mod modulo remainder half halves third thirds fourth fourths quarter fifth
    fifths sixth sixths eighth eighths tenth tenths hundredth hundredths
    thousandth thousandths twice double doubled triple tripled thrice dozen
    score hundred thousand million billion trillion hundreds thousands point percent percentage negative
    positive one two three four five six seven eight nine ten eleven twelve step chapter section
    question problem option choice answer line number equation figure table base except instead however
    though although vs versus ratio excluded rejected extraneous invalid onward onwards upward upwards
    too think believe unverified unconfirmed disputed
    """
)
FUNCTIONS = words(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp sqrt max min gcd lcm det"
)
# short words that computer algebra would take for a product of letters
ENGLISH = words(
    """
    is or and not the to of in if no so an as at by we he she it be do are was has for but you all any
    out up on mod
    """
)
