"""Answers as models and public data sets write them, found by readers who looked for what is judged amiss."""

import pytest

from selection.verification import Method, VerifySettings, judge

# none of these may be called correct: they are taken back, denied, doubtful, or another value
NOT_CORRECT = [
    ("\\boxed{18}\n\nUpon review, this is incorrect. The total is 9.", "18", "math"),
    ("\\boxed{18}\n\nI apologize for the error above. The total is 9.", "18", "math"),
    ("The answer is 18.\n\nActually, let me recount. There are 17 of them.", "18", "math"),
    ("\\boxed{15}\n\nEDIT: the correct value is 17.", "15", "math"),
    ("**Answer: 15**\n\n**Correction**: 17", "15", "math"),
    ("#### 18\n\nNote: this is wrong.", "18", "math"),
    ("\\boxed{18}\n\nHowever, we double counted. The count is 9.", "18", "math"),
    ("The answer is 18. That can't be right. 3*5 = 15.", "18", "math"),
    ("The answer is 18. Or is it 17?", "18", "math"),
    ("The answer is 18. Alternatively, 17.", "18", "math"),
    ("\\boxed{15} → actually \\(17\\)", "15", "math"),
    ("The answer is 18.\n\nBut the question asks for half of it: 9.", "18", "math"),
    ("\\boxed{18}\n\nBut we need m+n, so m + n = 18 + 5 = 23.", "18", "math"),
    ("Suppose the answer is 18. Then 2x = 40, a contradiction.", "18", "math"),
    ("There's no way the answer is 18.", "18", "math"),
    ("It's false the answer is 18.", "18", "math"),
    ("One might think the answer is 15. It is 17 though.", "15", "math"),
    ("You might be tempted to say the answer is 15.", "15", "math"),
    ("My first answer was 18.", "18", "math"),
    ("The previous answer is 18. We now double it: 36", "18", "math"),
    ("Sample answer: 15", "15", "math"),
    ("#### 18\n\nQuestion: Tom has 2 apples and gets 3. How many?\nAnswer: 2+3=5\n#### 5", "5", "math"),
    (
        "\\boxed{18}<|im_end|>\n<|im_start|>user\nWhat is 2+3?<|im_end|>\n"
        "<|im_start|>assistant\nThe answer is 5.",
        "5",
        "math",
    ),
    ("Die Antwort ist kleiner als 18.", "18", "math"),
    ("Antwort: die Hälfte von 18", "18", "math"),
    ("Respuesta: la raíz cuadrada de 18", "18", "math"),
    ("Ответ: возможно 18", "18", "math"),
    ("Answer: a minimum of 5", "5", "math"),
    ("Answer: nowhere near 18", "18", "math"),
    ("Answer: presumably 18", "18", "math"),
    ("Answer: 5 max", "5", "math"),
    ("Answer: 18 (estimate)", "18", "math"),
    ("Answer: 10 N to the right", "10 N to the left", "math"),
    ("Answer: 30° south of east", "30° north of east", "math"),
    ("Answer: 20 years younger", "20 years older", "math"),
    ("Answer: 5 blue balls", "5 red balls", "math"),
    ("Answer: 12 ft", "12 in", "math"),
    ("Answer: 12 in", "12 ft", "math"),
    ("Answer: 0.6%", "3/5", "math"),
    ("Answer: 1/6 %", "\\frac{1}{6}", "math"),
    ("Answer (in thousands): 12", "12", "math"),
    ("Answer: 12 bil", "12", "math"),
    ("Answer: 12 juta", "12", "math"),
    ("Answer: 8 = 7", "7", "math"),
    ("Answer: 3 \\times 2 = 7", "7", "math"),
    (
        '<tool_call>{"name": "check", "arguments": {"answer": 18}}</tool_call>\n'
        "<tool_response>wrong</tool_response>",
        "18",
        "math",
    ),
    ("<reasoning>\n\\boxed{17}\n</reasoning>\nI do not know.", "17", "math"),
    ("Answer: 18 ✗", "18", "math"),
    ("The answer is B.\n\nBut wait, the question asks for the false statement, which is D.", "B", "choice"),
    ("The answer is B. Hmm, no. D.", "B", "choice"),
    ("The answer is B. On reflection, D is better.", "B", "choice"),
    ("Answer: B\n\nEdit: D.", "B", "choice"),
    ("At first glance, the answer is B.", "B", "choice"),
    ("The least likely answer is B.", "B", "choice"),
    ("Answer:\nA. Paris\nB. London\nC. Rome\nD. Madrid", "A", "choice"),
    ("Answer: A ❌", "A", "choice"),
    ("Some claim B is the correct answer. They overlook friction.", "B", "choice"),
    ("If friction were zero, B is the correct answer.", "B", "choice"),
    ("I would choose C or D.", "C", "choice"),
    ("I choose C to be the center of the circle. Then ABC is a triangle.", "C", "choice"),
]
CORRECT = [
    ("#### 18\n\nQuestion: Tom has 2 apples and gets 3. How many?\nAnswer: 2+3=5\n#### 5", "18", "math"),
    (
        "The answer is 18.\n\nQ: Tom has 2 apples and gets 3. How many?\nA: 2+3=5. The answer is 5.",
        "18",
        "math",
    ),
    ("Answer: 3/4 (0.75)", "3/4", "math"),
    ("Answer: 60 (30 × 2)", "60", "math"),
    ("Answer: $60$ $\\square$", "60", "math"),
    ("Answer: 75% (3/4)", "3/4", "math"),
    ("Answer: 14 March", "March 14", "math"),
    ("Answer: Mar. 14", "March 14", "math"),
    ("【答案】18", "18", "math"),
    ("<ANSWER>18</ANSWER>", "18", "math"),
    ("<final_answer>18</final_answer>", "18", "math"),
    ("The answer is 18.<｜end▁of▁sentence｜>", "18", "math"),
    ("(Answer: 18)", "18", "math"),
    ("The answer's 18.", "18", "math"),
    ("The answer is clearly 18.", "18", "math"),
    ("The answer is found to be 18.", "18", "math"),
    ("The final result is 18.", "18", "math"),
    ("La réponse finale est : 18", "18", "math"),
    ("Respuesta final: 18", "18", "math"),
    ("Câu trả lời là 18.", "18", "math"),
    ("الجواب هو 18.", "18", "math"),
    ("Answer: 12 in", "1 ft", "math"),
    ("The final answer is $(0,1]$", "(0,1]", "math"),
    ("Answer: 60%", "3/5", "math"),
    ("Answer: 0.6", "3/5", "math"),
    ("Answer: 3 × 2 = 6", "6", "math"),
    ("Question: what?\nLet us see. The answer is 7.", "7", "math"),
    ("Final verdict: [[B]]", "B", "choice"),
    ("Answer: [[B]]", "B", "choice"),
    ("B\n\nExplanation: Paris is the capital.", "B", "choice"),
    ("I'll go with B.", "B", "choice"),
    ("因此选B。", "B", "choice"),
    ("La respuesta correcta es B.", "B", "choice"),
    ("A resposta correta é B.", "B", "choice"),
    ("La risposta corretta è B.", "B", "choice"),
    ("Answer: A. Paris", "A", "choice"),
    ("The answer is A.\nB is wrong since", "A", "choice"),
]
UNITS = [
    ("8.314 J/(mol·K)", "8.314"),
    (r"60 \frac{\text{J}}{\text{kg}\cdot\text{K}}", "60"),
    ("4184 J kg^{-1} K^{-1}", "4184 J/(kg K)"),
    (r"60 \mu C", "60"),
    (r"60 k\Omega", "60 kΩ"),
    ("60 MeV/c^2", "60"),
    ("60 ft-lb", "60"),
    ("Ksh 1,500", "1500"),
    ("60 mT", "0.06 T"),
    ("60 Å", "6 nm"),
    ("60 mmHg", "60"),
]


@pytest.mark.parametrize(("answer", "reference"), UNITS)
def test_units_of_physics_are_read(answer: str, reference: str) -> None:
    assert judge(f"Answer: {answer}", reference, VerifySettings("math")).state == "correct"
    assert judge(f"Answer: 7{answer}", reference, VerifySettings("math")).state != "correct"


@pytest.mark.parametrize(("text", "reference", "method"), NOT_CORRECT)
def test_what_is_not_surely_right_is_not_called_so(text: str, reference: str, method: Method) -> None:
    assert judge(text, reference, VerifySettings(method)).state != "correct"


@pytest.mark.parametrize(("text", "reference", "method"), CORRECT)
def test_what_is_right_is_called_so(text: str, reference: str, method: Method) -> None:
    assert judge(text, reference, VerifySettings(method)).state == "correct"


def test_a_value_and_its_rounding_are_not_wrong() -> None:
    assert judge("Answer: 0.333 (1/3)", r"\frac{1}{3}", VerifySettings("math")).state != "wrong"


@pytest.mark.parametrize("line", ["Q: what?\n", "### Instruction\n", "<|im_start|>user\n", "Answer: 1 (2)\n"])
def test_texts_of_many_turns_are_read_in_no_time(line: str) -> None:
    judge(line * 20_000, "5", VerifySettings("math"))  # pytest's own limit of time would end it
