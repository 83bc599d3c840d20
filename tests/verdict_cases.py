"""Answers, references and the verdicts they should get, by kind, written before the code that reads them.

A line is `verdict | reference | final answer`: `=` correct, `!` wrong, `?` unparsed, `~` anything but
correct. In TEXTS the last field is the whole answer, with ⏎ for a line break. A kind belongs to the method
that its name begins with.
"""

FINALS: dict[str, str] = {
    "math values that an equation says": r"""
= | 113 | m+n = 113
= | 1234 | 100m+n=1234
! | 113 | m+n = 114
= | 204 | m+n=188+16=204
= | 5 | |z| = 5
= | 7 | f(1)+f(2) = 7
= | 3 | \frac{a}{b} = 3
~ | 12 | 2x = 12
~ | 5 | x^2 = 25
! | 5 | x \neq 5
""",
    "math commas within a number": r"""
= | 1234 | x = 1,234
= | 12500 | $N = 12{,}500$
= | 70000 | Total = $70,000
= | 1500 | 3 \times 500 = 1,500
= | 1000, 2000 | 1,000 and 2,000
= | (1000, 2) | (1,000, 2)
= | (100, 200) | (100,200)
= | (12,345) | (12, 345)
= | \{100, 200\} | {100,200}
? | 100, 200 | 100,200
~ | 123456 | (123,456)
~ | 1, 0 | x = 1,000
""",
    "math several lengths and amounts": r"""
~ | 5 cm | 2 cm and 3 cm
~ | 9 hours | 4 hours, 5 hours
= | 5.5 hours | 5 hours and 30 minutes
~ | 120 | 2 hours
! | 121 | 2 hours
? | 36 | 3 feet
? | 10 N | 10 kg·m/s²
= | 500 mL | 500 cm^3
? | 300 | 300K
= | -1250 | ($1,250)
~ | 1250 | ($1,250)
""",
    "math parts and scales in words": r"""
~ | 5 | five twelfths
= | 5/12 | five twelfths
= | 3/16 | 3 sixteenths
= | 1/20 | one twentieth
~ | 7 | 7 millionths
~ | 0.3 | 0.3 repeating
~ | 3 | 3 grand
= | 2000000 | 2 Millionen
= | 24 | 2 docenas
= | 50% | 50 Prozent
""",
    "math words that change a number": r"""
~ | 5 | the square of 5
~ | 5 | a multiple of 5
~ | 100 | anything other than 100
~ | 5 | smaller than 5
~ | 2 | all reals excluding 2
= | 5 | a total of 5
= | 18 | the sum of 18
""",
    "math other forms": r"""
= | (1,2) | \begin{pmatrix}1\\2\end{pmatrix}
~ | \begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}1 & 2\end{pmatrix}
= | \frac{\pi}{4} | 45^\circ
= | \frac{\sqrt3}{2} | \sin 60^\circ
~ | 2020-02-04 | 2020-01-05
= | 2020-02-04 | 2020-02-04
= | 30 | 30 mpg
? | none | 0
""",
    "math said plainly": r"""
= | 18 | 18 (eggs)
= | 18 | 18 [apples]
= | 18.5 | 18 and a half
= | 18.25 | 18 and a quarter
= | 18.5 | eighteen and a half
= | 18.5 | 18 and a half hours
= | 18 | 18个
= | 25000 | 2.5万
= | 250000000 | 2.5亿
! | 100 | 100,000
= | 3 | 3m
! | 4 | 3m
= | 3 m | 3m
= | 6 feet 2 inches | 6 ft 2 in
= | 6 ft 2 in | 6 feet 2 inches
! | 6 ft 2 in | 6 feet 3 inches
? | 2516_8 | 2516
= | 2516_8 | 2516_8
? | 2, 3 | [2, 3]
~ | (2, 3) | [2, 3]
~ | 1011_3 | 1011_2
= | 1011_2 | 1011_{2}
= | 1011_2 | (1011)_2
~ | F_n = \sum_{k=0}^{n} \binom{n-k}{k} | F_n = \sum_{k=1}^{n} \binom{n-k}{k}
~ | \sum_{k=1}^{\infty} \frac{1}{k^2+k+1} | \sum_{k=1}^{\infty} \frac{1}{k^2+k+2}
= | \sum_{k=1}^{n} k | \sum_{k=1}^{n} k
~ | 7^{7^{7^{7}}} | 8^{7^{7^{7}}}
~ | 100000! | 100001!
= | 2^{100} | 1267650600228229401496703205376
? | \frac{2}{3} | e^{e^{e^{10}}}
! | 3 m | 4m
? | 18 | 18以上
! | 5.75 | 5 and a half
= | 70 inches | 5' 10"
? | 2516_8 | 9_8
""",
    "numeric said plainly": r"""
= | 18 | 18 (eggs)
= | 18.5 | 18 and a half
= | 25000 | 2.5万
! | 100 | 100,000
= | 3 | 3m
""",
    "choice said plainly": r"""
= | D | $D
= | D | $D$
= | B | B is the answer.
""",
    "math grouping": r"""
~ | \sqrt{x}+1 | \sqrt{x+1}
~ | x^2+1 | x^{2+1}
~ | x^{2+1} | x^2+1
~ | \frac{1}{23} | \frac{1}{2}3
~ | \frac{12}{3} | \frac{1}{23}
~ | e^{x}y | e^{xy}
~ | \sin{x}y | \sin{xy}
~ | 2^{3}4 | 2^{34}
~ | \log_{2}3x | \log_{23}x
~ | a_{1}2 | a_{12}
~ | x^{1.5} | x/2
= | x\sqrt{x} | x^1.5
= | \frac{5}{2}\pi | 2\frac{1}{2}\pi
= | 2 | 4(\frac{1}{2})
~ | 4.5 | 4(0.5)
= | x^2+1 | x^{2}+1
= | \sqrt{x+1} | \sqrt{ x + 1 }
= | (x+1)^2 | \mathrm{x+1}^2
~ | x/2 | 1/2x
~ | \frac{1}{2x} | 1/2x
= | 1/2x | 1/2x
""",
    "math letters": r"""
~ | \Delta | \delta
~ | A+5 | a+5
~ | \ln(a) | \ln(A)
~ | R_A | R_a
~ | 5 Mg | 5 mg
~ | 5 ms | 5 m s
~ | 1,234 | 1, 234
= | 1+R_A | R_A+1
= | \Delta t | t \Delta
""",
    "math plain numbers": r"""
= | 18 | 18
= | 18 | 18.
= | 18 | 18.0
= | 18 | +18
= | 18 | 018
= | -5 | -5
! | 5 | -5
! | -5 | 5
! | 18 | 19
! | 2 | 12
! | 18 | 18.5
= | 0.5 | .5
= | -0.5 | -.5
= | 18.50 | 18.5
= | 0 | -0
= | 1e3 | 1000
= | 004 | 4
= | 12345678901234567890 | 12345678901234567890
! | 12345678901234567890 | 12345678901234567891
""",
    "math signs": r"""
= | -5 | −5
~ | 5 | −5
= | -5 | –5
= | -5 | - 5
~ | 5 | - 5
= | -5 | -$5
~ | 5 | -$5
= | -5 | $-5
= | -5 | −$5
= | -5 | \$-5
= | -5 | negative 5
= | -5 | minus 5
~ | 5 | negative 5
= | -5 | -5 degrees
= | -5 | (-5)
= | -0.5 | -\frac{1}{2}
= | -0.5 | \frac{-1}{2}
= | -0.5 | \frac{1}{-2}
= | -0.5 | −½
~ | 0.5 | −½
""",
    "math grouped digits": r"""
= | 1234 | 1,234
= | 1234 | 1 234
= | 1234 | 1\,234
= | 1234 | 1{,}234
= | 1234 | 1\ 234
= | 1234 | 1 234
= | 1234 | 1 234
= | 1234 | 1~234
= | 1234 | 1'234
= | 1234 | 1’234
= | 1234 | 1_000 + 234
= | 1000 | 1_000
= | 1000000 | 1_000_000
= | 12500 | 12{,}500
= | 12500 | 12\;500
= | 12500 | 12,\!500
= | 12500 | 12 500
= | 1234567 | 1,234,567
= | 1234567 | 1 234 567
= | 1234567.89 | 1,234,567.89
= | 1234567.89 | 1.234.567,89
= | 1234.56 | 1.234,56
= | 1234567 | 1.234.567
= | 100000 | 1,00,000
= | 1234567 | 12,34,567
= | 1234 | 1234
~ | 235 | 1\,234
~ | 235 | 1 234
~ | 235 | 1,234
~ | 234 | 1,234
~ | 1 | 1,234
! | 1235 | 1,234
~ | 1234 | 1.234
~ | 1.234 | 1,234
= | 1.234 | 1.234
= | 1,234 | 1234
= | 1 234 | 1,234
= | 3.5 | 3,5
= | 12.5 | 12,50
= | 0.125 | 0,125
~ | 35 | 3,5
~ | 1234 | 12,34
~ | 12345 | 12 345 6
~ | 1234 | 1 2 3 4
= | 12{,}500 | 12500
= | \$1{,}250 | 1250
""",
    "math unit words": r"""
= | 18 | 18 dollars
= | 40 | 40 pages
= | 5 | 5 cookies
! | 18 | 19 cookies
! | 18 | 17 dollars
= | 18 | 18 apples
= | 18 | 18 miles
= | 18 dollars | 18
= | 18 dollars | $18
= | 18 apples | 18 apples
= | 1 apple | 1 apples
= | 18 | 18\text{ cookies}
= | 18 | 18 \text{ miles per hour}
= | 18 | 18 \mathrm{~cm}
= | 18 | 18\,\mathrm{cm}^2
= | 18 | 18 \text{ cm}^2
= | 18 | 18 cm²
= | 18 | 18 square feet
= | 18 | 18 sq. ft.
= | 18 | 18 years old
= | 18 | 18 more apples
= | 18 | 18 hours per week
= | 18 | 18 km/h
= | 18 | 18 m/s
= | 18 | 18 m s^{-1}
= | 18 | 18 kg
= | 18 | 18kg
= | 18 | 18 units
= | 18 | 18 pieces of candy
= | 18 | 18 left
= | 18 | 18 in total
= | 18 | 18 ways
= | 18 | \text{18 apples}
= | 18 | 18~\text{apples}
= | 18 | 18\mbox{ apples}
= | 18 | 18 \textrm{ dollars}
= | 18 | 18 \text{students}
= | 18 | 18 hrs
= | 18 | She has 18 apples left
= | 18 | There are 18 students in the class
= | 18 | He needs 18 more dollars
= | 72 | Natalia sold 72 clips altogether in April and May
= | 18 | exactly 18
= | 18 | a total of 18 apples
= | 18 | 18 units^2
= | 18 | 18 \text{ units}^3
= | 18 | 18 cubic meters
= | 1/2 | \frac{1}{2} \text{ cup}
= | 1/2 | 1/2 cup
= | 2.5 | 2 1/2 hours
= | \pi | \pi \text{ cm}
= | 9\pi | 9\pi \text{ square inches}
= | 9\pi | 9\pi\ \mathrm{cm}^2
= | 9\pi | 9π cm²
= | 2\sqrt{3} | 2\sqrt{3} \text{ units}
! | 9\pi | 3\pi \text{ cm}
""",
    "math units that differ": r"""
= | 3 m | 3 m
= | 3 m | 3 meters
= | 3 meters | 3 metres
! | 3 m | 3 km
! | 3 km | 3 m
= | 5 cm | 50 mm
= | 50 mm | 5 cm
= | 3 m | 300 cm
= | 1 hour | 60 minutes
= | 1.5 hours | 90 minutes
! | 90 minutes | 2 hours
! | 3 m | 3 kg
! | 3 hours | 3 minutes
= | 2 kg | 2000 g
= | 1 L | 1000 mL
= | 1 foot | 12 inches
= | 1 yard | 3 feet
= | 1 week | 7 days
= | 60 km/h | 60 kilometers per hour
= | 60 mph | 60 miles per hour
~ | 60 mph | 60 km/h
= | 10 m/s | 36 km/h
! | 4 cm^2 | 4 cm
! | 4 cm^2 | 4 cm^3
= | 4 cm^2 | 4 square centimeters
= | 4 \text{ m}^2 | 4 sq m
= | 1 m^2 | 10000 cm^2
~ | 5 | 5000 mm
~ | 5000 | 5 km
= | 5 km | 5
! | 5 km | 6
~ | 18 apples | 18 oranges
""",
    "math currency": r"""
= | 18 | $18
= | 18 | \$18
= | 18 | \$ 18
= | 18 | 18\$
= | 18 | 18$
= | 18 | USD 18
= | 18 | 18 USD
= | 18 | US$18
= | 18 | 18 €
= | 18 | €18
= | 18 | £18
= | 18 | ¥18
= | 18 | ₹18
= | 18 | Rs. 18
= | 18 | Rs 18
= | 18 | 18 euros
= | 18 | $18.00
= | 18 | \$18.00
= | 18 | $18 per hour
= | 18 | \$18 \text{ per hour}
= | 18 | 18 bucks
= | $18 | 18 dollars
= | \$18 | $18
! | $18 | $19
! | $18 | €18
! | 18 dollars | 18 euros
= | $0.50 | 50 cents
= | 50 cents | $0.50
= | 50 cents | \$0.50
= | 1250 | $1,250
= | 1250 | \$1,250.00
= | 1250 | \$1{,}250
~ | 0.5 | 50 cents
= | 50 | 50 cents
= | 50 | 50¢
""",
    "math percent": r"""
= | 50 | 50%
= | 50 | 50\%
= | 50% | 50
= | 50\% | 50
= | 50 | 50 percent
= | 50 | 50 per cent
= | 50 | 50 \text{ percent}
= | 50 | 50\text{\%}
= | 50% | 50 percent
= | 0.5 | 50%
= | 50% | 0.5
= | 1/2 | 50\%
= | 50\% | \frac{1}{2}
! | 50 | 0.5
! | 0.5 | 50
! | 50% | 5%
! | 50% | 0.5%
! | 50% | 60
= | 12.5 | 12.5%
= | 12.5\% | 12\frac{1}{2}\%
= | 33 | 33 percentage points
""",
    "math fractions and mixed numbers": r"""
= | 71/6 | 11 5/6
= | 71/6 | 11\frac{5}{6}
= | 71/6 | 11 \frac{5}{6}
= | 71/6 | 11 \dfrac{5}{6}
= | 71/6 | 11\,\frac{5}{6}
= | 71/6 | 11 and 5/6
= | 11 5/6 | \frac{71}{6}
= | 11\frac{5}{6} | 11 5/6
~ | 8/3 | 11 5/6
~ | 55/6 | 11 5/6
~ | 11 | 11 5/6
~ | 5/6 | 11 5/6
~ | 16/6 | 11 5/6
= | -5/2 | -2 1/2
= | -5/2 | -2\frac{1}{2}
~ | -3/2 | -2 1/2
~ | 20/3 | 2 10/3
~ | 2 | 2 10/3
= | 5/2 | 2½
= | 5/2 | 2 ½
= | 1/2 | ½
= | 3/4 | ¾
= | 1/3 | ⅓
= | 1/2 | 1⁄2
= | 1/2 | \frac12
= | 1/2 | \frac 12
= | 1/2 | \frac{1}2
= | 1/2 | \dfrac{1}{2}
= | 1/2 | \tfrac{1}{2}
= | 1/2 | \cfrac{1}{2}
= | 1/2 | 1/2
= | 1/2 | 2/4
= | 1/2 | 0.5
= | 1/2 | {1}/{2}
= | 1/2 | 1 / 2
= | 0.25 | \frac{1}{4}
= | 3 | 6/2
! | 1/2 | 1/3
! | 1/3 | 0.33
! | 1/3 | 0.3333
~ | 1/3 | 0.333334
= | 2/3 | two thirds
= | 1/2 | one half
= | 1/2 | half
= | 3/4 | three quarters
= | 3/4 | three-fourths
= | 7/2 | three and a half
= | 1/12 | 0.08333333333333333
= | 1/6 | 1 out of 6
= | 1/6 | 1 in 6
! | 1/6 | 1 out of 5
""",
    "math repeating decimals": r"""
= | 1/3 | 0.\overline{3}
= | 1/3 | 0.\bar{3}
= | 1/3 | 0.\overline3
= | 1/3 | 0.(3)
= | 1/3 | 0.333...
= | 1/3 | 0.333…
= | 1/3 | 0.3333\ldots
= | 1/6 | 0.1\overline{6}
= | 1/6 | 0.1666...
= | 0.\overline{3} | 1/3
= | 1 | 0.\overline{9}
= | 3/11 | 0.\overline{27}
= | 3/11 | 0.272727...
! | 1/3 | 0.\overline{4}
! | 1/3 | 0.\overline{6}
""",
    "math scientific": r"""
= | 6.02e23 | 6.02 \times 10^{23}
= | 6.02 \times 10^{23} | 6.02e23
= | 6.02 \times 10^{23} | 6.02E+23
= | 6.02 \times 10^{23} | 6.02 × 10^23
= | 6.02 \times 10^{23} | 6.02·10^23
= | 6.02 \times 10^{23} | 6.02 \cdot 10^{23}
= | 6.02 \times 10^{23} | 6.02 x 10^23
= | 6.02 \times 10^{23} | 6.02*10^23
= | 6.02 \times 10^{23} | 6.02×10²³
= | 0.001 | 10^-3
= | 0.001 | 10^{-3}
= | 0.001 | 10⁻³
= | 0.001 | 1e-3
= | 300000000 | 3\times 10^{8}
= | 300000000 | 3e8
= | 3\times 10^8 | 3.0 \times 10^8 \text{ m/s}
! | 9.1\times 10^{-31} | 1.6\times 10^{-19}
! | 0.0000001 | 0.0000003
! | \frac{1}{2^{61}} | \frac{1}{2^{60}}
! | \frac{1}{2^{98}} | \frac{1}{2^{99}}
! | 6.02 \times 10^{23} | 6.02 \times 10^{22}
! | 6.02 \times 10^{23} | 6.02
= | 6.6\times 10^{-34} | 6.6\times 10^{-34}
= | 1000000 | 10^6
""",
    "math scale words": r"""
= | 2000000 | 2 million
= | 2000000 | 2 \text{ million}
= | 2000000 | $2 million
= | 2000000 | 2 million dollars
= | 1500000 | $1.5M
= | 1500000 | 1.5M
= | 1500000 | \$1.5 \text{ million}
= | 5000 | 5k
= | 5000 | 5K
= | 5000 | $5k
= | 5000 | 5 thousand
= | 3000000000 | 3bn
= | 3000000000 | 3 billion
= | 3000000000 | $3B
= | 24 | 2 dozen
= | 200 | 2 hundred
= | 200000 | 2 lakh
= | 2 million | 2,000,000
= | 2 million | 2 million
! | 2 million | 2 billion
~ | 2 | 2 million
~ | 2 million | 2
~ | 1.5 | $1.5M
~ | 2 | 2 dozen
~ | 5 | 5k
""",
    "math number words": r"""
= | 3 | three
= | 3 | Three
= | three | 3
= | 21 | twenty-one
= | 21 | twenty one
= | 105 | one hundred and five
= | 1200 | twelve hundred
= | 2500 | two thousand five hundred
= | 12 | a dozen
= | 3 | three apples
= | 0 | zero
! | 3 | four
! | 21 | twenty
= | 3 | 3rd
= | 3 | 3^{rd}
= | 5 | 5th
= | 5 | 5^{\text{th}}
= | 5th | 5
= | third | 3rd
! | 3rd | 4th
""",
    "math typography": r"""
= | 18 | \text{18}
= | 18 | \textbf{18}
= | 18 | \mathbf{18}
= | 18 | \mathrm{18}
= | 18 | \bf{18}
= | 18 | **18**
= | 18 | *18*
= | 18 | __18__
= | 18 | `18`
= | 18 | "18"
= | 18 | “18”
= | 18 | '18'
= | 18 | $18$
= | 18 | $$18$$
= | 18 | \(18\)
= | 18 | \[18\]
= | 18 | \displaystyle 18
= | 18 | {18}
= | 18 | \left(18\right)
= | 18 | (18)
= | 18 | １８
= | 18 | 18\,
= | 18 | ~18
= | 18 | \!18
= | 18 | \;18\;
= | 18 | \quad 18
= | 18 | \color{red}{18}
= | 18 | \textcolor{blue}{18}
= | 18 | \large 18
= | 18 | <b>18</b>
= | 18 | 18 ✅
= | 18 | ✅ 18
= | \text{east} | east
= | \frac{1}{2} | $\frac{1}{2}$
= | \left(1, 2\right) | (1,2)
= | \text{yes} | **Yes**
""",
    "math equations": r"""
= | 5 | x = 5
= | 5 | x=5
= | x = 5 | 5
= | x = 5 | x=5
! | x = 5 | x=6
! | x = 5 | y=5
! | 5 | x=6
= | 5 | x_1 = 5
= | 5 | \theta = 5
= | 18 | Total = 18
= | 18 | Area = 18 cm^2
= | 18 | total cost = $18
= | 18 | \text{Area} = 18
= | 7 | 3 + 4 = 7
= | 7 | x = 3 + 4 = 7
= | 12 | 3*4
= | 12 | 3 \times 4
= | 5 | f(2) = 5
= | 1/2 | P(A) = \frac{1}{2}
= | 2x+1 | y = 2x+1
= | y = 2x+1 | y = 2x + 1
= | y = 2x+1 | 2x+1
= | y = 2x+1 | y = 1 + 2x
= | y = 2x+1 | 2x - y + 1 = 0
! | y = 2x+1 | y = 2x-1
! | y=2x+1 | y = 2x
= | 2x + 3y = 6 | 4x + 6y = 12
! | 2x + 3y = 6 | 2x + 3y = 7
! | 3x+4y+14=0 | 3x-y+13=0
= | x^2+y^2=1 | y^2 + x^2 = 1
! | 5 | x \neq 5
~ | 5 | x > 5
~ | 5 | x < 5
= | 5 | 5 = x
= | 5 | x \approx 5
= | 5 | ≈ 5
= | 18 | = 18
""",
    "math expressions": r"""
= | (x+1)^2 | x^2+2x+1
= | (x+1)^2 | x² + 2x + 1
= | x^2 | x**2
= | x^2 | x^{2}
= | 2x | 2*x
= | 2x | x \cdot 2
! | 2x | 3x
! | x^2 | x^3
! | x | y
! | 2 | 2x
! | 2x | 2
= | \sqrt{2} | √2
= | \sqrt{2} | sqrt(2)
= | \sqrt{2} | \sqrt2
= | \sqrt{2} | 2^{1/2}
= | 2\sqrt{3} | 2√3
= | 2\sqrt{3} | \sqrt{12}
! | 2\sqrt{3} | 3\sqrt{2}
= | \frac{\sqrt{3}}{3} | \frac{1}{\sqrt{3}}
= | \pi | π
= | \pi | pi
= | 2\pi | 2π
= | \pi | 3.14159265
! | \pi | 3.14
= | \frac{\pi}{2} | π/2
= | e^{2} | e^2
! | 1 - \frac{1}{e} | 1 + \frac{1}{e}
= | \ln 2 | \ln(2)
= | \log_2 8 | 3
= | 5! | 120
~ | 18 | 18!
= | \binom{5}{2} | 10
= | 2^{10} | 1024
= | \frac{x+2}{7} | \frac{x}{7}+\frac{2}{7}
= | x+1 | \frac{x^2-1}{x-1}
! | \frac{1}{3 \cdot 2^{2006}} | \frac{2^{2005}+1}{3 \cdot 2^{2006}}
= | 3+4i | 4i + 3
! | 3+4i | 3-4i
= | \sin^2 x | 1-\cos^2 x
! | \sin x | \cos x
= | a+b | b+a
= | |x| | \left|x\right|
~ | x | |x|
= | \frac{1}{1+x} | 1/(1+x)
= | 2^n | 2^{n}
! | \frac{1}{2004!} | \frac{1}{2006!}
! | x/2^{99} | x/2^{98}
""",
    "math several values": r"""
= | 1, 2 | 1, 2
= | 1, 2 | 2, 1
= | 1, 2 | 1 and 2
= | 1, 2 | 1 or 2
= | 1, 2 | x = 1 or x = 2
= | 1, 2 | x=1, x=2
= | 1, 2 | x=1, 2
= | 1,2 | \{1, 2\}
= | \{1,2\} | {1, 2}
= | \{1,2\} | 2, 1
= | \{1,2,3\} | \{3, 2, 1\}
= | 1, 2, 3 | 1, 2, and 3
= | 1, 2 | 1 \text{ and } 2
= | 1, 2 | 1 \text{ or } 2
! | 1, 2 | 1, 3
! | 1, 2 | 1
! | 1 | 1, 2
! | 2 | 1 or 2
! | 2, 3, 4 | 1, 2, 3
! | 19, 46, \text{ and } 82 | 21, 36, and 82
! | n=2, 3, 4 | n=1, 2, 3
= | \pm 2 | 2, -2
= | 2, -2 | \pm 2
= | ±2 | \pm 2
= | \pm 2 | x = \pm 2
! | \pm 2021 | 2021
! | 2 | \pm 2
= | 1 \pm \sqrt{2} | 1+\sqrt{2}, 1-\sqrt{2}
! | 1 \pm \sqrt{2} | 1+\sqrt{2}
= | (1, 2) | (1, 2)
= | (1, 2) | (1,2)
= | (1, 2) | \left( 1, 2 \right)
= | (1, 2) | (x, y) = (1, 2)
= | (1, 2) | x = 1, y = 2
= | (1, 2) | y = 2, x = 1
= | x = 1, y = 2 | y=2, x=1
! | x = 1, y = 2 | x=2, y=1
! | (1, 2) | (2, 1)
~ | (1, 2) | \{1, 2\}
! | (1, 2) | (1, 3)
= | (1, \frac{9}{2}) | (1, 4.5)
! | (1,2) | (1,2,3)
= | (1,2), (3,4) | (3,4), (1,2)
= | (1,2), (3,4) | (1,2) and (3,4)
! | (1,2), (3,4) | (1,2)
! | D=(0,1) | D=(0,1.5)
= | 2:3 | 2:3
= | 2:3 | 4:6
= | 2:3 | 2 : 3
! | 2:3 | 3:2
= | 2/3 | 2:3
""",
    "math intervals and inequalities": r"""
= | [1, 2) | [1,2)
! | [1, 2) | (1,2)
! | [1, 2) | [1,2]
! | [1,2) | [1,3)
= | (1, \infty) | (1, ∞)
= | (1, \infty) | x > 1
= | x > 1 | (1, \infty)
= | x > 1 | 1 < x
= | x > 1 | x>1
! | x > 1 | x \ge 1
! | x > 1 | x < 1
= | x \geq 1 | x ≥ 1
= | x \ge 1 | [1, \infty)
= | x \le 1 | x <= 1
= | 1 < x < 2 | (1,2)
= | 1 \le x < 2 | [1, 2)
= | (1,2) | x \in (1,2)
= | (-\infty, 1) \cup (2, \infty) | (2,\infty) \cup (-\infty,1)
= | (-\infty, 1) \cup (2, \infty) | x < 1 or x > 2
! | (-\infty, 1) \cup (2, \infty) | (-\infty, 1)
! | (-\infty, 1] \cup (2, \infty) | (-\infty, 1) \cup (2, \infty)
= | \infty | ∞
= | \infty | infinity
! | \infty | -\infty
! | \infty | 5
= | [-1, 1] | \left[-1, 1\right]
= | y \ge 2x | 2x \le y
~ | y \ge 2x | y \le 2x
""",
    "math matrices": r"""
= | \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{pmatrix}1&2\\3&4\end{pmatrix}
= | \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}
! | \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}
! | \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}
= | \begin{pmatrix} 1/2 \\ 3 \end{pmatrix} | \begin{pmatrix} \frac{1}{2} \\ 3 \end{pmatrix}
! | \begin{pmatrix} 1 \\ 3 \end{pmatrix} | \begin{pmatrix} 1 & 3 \end{pmatrix}
""",
    "math words": r"""
= | yes | Yes
= | yes | yes.
= | yes | Yes, because 3 is odd
! | yes | No
! | no | Yes, she can
= | east | East
= | east | \text{east}
= | east | to the east
~ | east | seat
~ | east | west
~ | east | not east
~ | east | northeast
= | no solution | No solution
= | no solution | \text{no solution}
= | no solution | no solutions
= | \emptyset | ∅
= | \emptyset | no solution
= | Friday | friday
= | Friday | on Friday
! | Friday | Monday
= | Paris | Paris
~ | 18 | no idea
? | 3 | I do not know
! | east | 5
= | undefined | undefined
= | \text{Monday} | Monday
= | red and blue | red and blue
~ | red | blue or red
= | True | true
! | True | False
= | DNE | does not exist
= | B | \textbf{(B)}
= | B | (B)
= | \text{(B)} | B
! | B | C
""",
    "math time and degrees": r"""
= | 3:30 | 3:30
= | 3:30 PM | 3:30 pm
= | 3:30 PM | 3:30 p.m.
= | 3:30 PM | 15:30
= | 3:30 | 3:30 PM
! | 3:30 PM | 3:30 AM
! | 12:00 | 1:00
! | 3:30 | 3:45
~ | 3.5 | 3:30
~ | 3:30 | 3
= | 3 PM | 3:00 PM
= | 90 | 90°
= | 90 | 90^\circ
= | 90 | 90^{\circ}
= | 90 | 90 degrees
= | 90^\circ | 90
= | 90^\circ | 90°
= | 90 | 90\degree
! | 90^\circ | 80°
= | 25 | 25°C
= | 25 | 25 ^\circ \text{C}
= | 25°C | 25 degrees Celsius
~ | 25°C | 25°F
""",
    "math hedges": r"""
~ | 3 | 3 or 4
~ | 4 | 3 or 4
~ | 5 | not 5
~ | 5 | not equal to 5
~ | 3 | 3-5
~ | 4 | 3-5
~ | 3 | 3–5
~ | 3 | 3 to 5
~ | 5 | 3 to 5
~ | 3 | between 3 and 5
~ | 5 | at least 5
~ | 5 | more than 5
~ | 5 | less than 5
~ | 5 | 5 or more
~ | 5 | maybe 5
~ | 5 | probably 5
~ | 5 | either 5 or 6
~ | 5 | 5?
~ | 5 | 5 (or 6)
~ | 5 | 5, but it could be 6
~ | 5 | up to 5
~ | 5 | twice 5
~ | 5 | half of 5
~ | 5 | 5 times 2
~ | 5 | 5 plus 3
= | 8 | 5 plus 3
~ | 5 | 5 remainder 2
~ | 2 | H2O
~ | 5 | 5 apples and 3 oranges
~ | 3 | 5 apples and 3 oranges
~ | 5 | unknown, 5 is a guess
~ | 5 | 5 is wrong
~ | 18 | 17 and 18
~ | 0 | none
~ | 1 | a few
~ | 1 | a bird
~ | 12 | dozens
""",
    "numeric": r"""
= | -5 | −5
~ | 5 | −5
= | -5 | -$5
~ | 5 | -$5
~ | 5 | - 5
= | -5 | - 5
~ | 34 | 3,4
~ | 3 | 3,4
~ | 2 | 2 million
= | 2000000 | 2 million
~ | 1.5 | $1.5M
= | 1500000 | $1.5M
= | 1234567 | 1,234,567
= | 1234.5 | $1,234.50
= | 5 | 5 kg
~ | 2 | H2O
~ | 3 | 3-5
~ | 5 | 3-5
? | 3 | 3 or 4
= | 0.5 | 1/2
~ | 1 | 1/2
~ | 2 | 1/2
= | 71/6 | 11 5/6
= | 12500 | 12 500
= | 12500 | 12{,}500
~ | 500 | 12 500
~ | 12 | 12 500
= | 18 | **18**
= | 18 | x = 18
= | 18 | 18 apples
! | 18 | 19 apples
= | 18 | \text{18 dollars}
= | 50 | 50%
= | 1000 | 1e3
= | -3.5e2 | -350
= | 0.001 | 10^{-3}
~ | 10 | 10^{-3}
= | 3.5 | 3,5
= | 1234.56 | 1.234,56
~ | 5 | not 5
? | 5 | the square root
~ | 18 | 18 ± 1
~ | 5 | 5th or 6th
= | 3 | three
= | 1000000 | 1'000'000
= | -1234 | -1,234
= | 18 | €18
= | 18 | 18€
! | 5 | 55
~ | 1 | 1.2.3
~ | 2024 | 2024-05-01
~ | 5 | 5:30
~ | 192 | 192.168.0.1
~ | 15 | COVID-15
~ | 1 | 1st or 2nd
= | 0.3 | .3
! | 0.3 | 3
""",
    "choice": r"""
= | B | B
= | B | b
= | B | (B)
= | B | (b).
= | B | B.
= | B | B)
= | B | B:
= | B | [B]
= | B | **B**
= | B | **(B)**
= | B | *B*
= | B | `B`
= | B | "B"
= | B | B. Paris
= | B | B) Paris
= | B | (B) Paris
= | B | B: Paris
= | B | B - Paris
= | B | **B. Paris**
= | B | **B**. Paris
= | B | option B
= | B | Option B.
= | B | choice (B)
= | B | \textbf{(B)}
= | B | \textbf{(B)}\ 12
= | B | \textbf{(B) } 12
= | B | \text{B}
= | B | \text{(B)}
= | B | \mathrm{B}
= | B | $B$
= | B | \(B\)
= | B | $\textbf{B}$
= | B | B, because it is larger
= | B | B because it is larger
= | B | B since 3 > 2
= | B | B, not C
= | B | (B) is correct
= | B | B is the correct answer
= | A | A) 12
= | A | A. I think so
= | (B) | B
= | b. | B
= | B. Paris | B
= | \text{(B)} | B
= | D | D. None of the above
= | B | Ｂ
! | B | C
! | B | C.
! | B | (C) Paris
! | B | \textbf{(C)}\ 12
! | B | C, because ...
? | A | a bird
? | A | A bird
? | I | I think
? | B | B or C
? | C | B or C
? | B | B and C
? | B | B/C
? | B | B, C
? | B | (B) or (C)
? | B | either B or C
? | C | not C
? | C | not (C)
? | B | none of these
? | B | Neither
? | B | none of the above
? | B | B is wrong
? | B | (B) is incorrect
? | B | B?
? | B | maybe B
? | B | B, or maybe C
? | B | B, but it could be C
? | A | All of the above
? | B | Both
? | A | A lot
? | C | C++
? | B | B12
? | A | AB
? | D | Don't know
? | I | I do not know
? | A | a) and b)
= | A, C | A and C
= | A, C | A, C
= | A,C | C, A
! | A, C | A, B
""",
    "exact": r"""
= | b7 | b7
= | b7 |  b7
= | b7 | **b7**
= | b7 | `b7`
= | b7 | \text{b7}
! | b7 | b8
! | b7 | B7
! | b7 | b77
= | New York | New   York
! | 18 | 18.0
= | a_b | a_b
= | f(x) | f(x)
= | 2*3 | 2*3
= | x. y | x. y
""",
}

TEXTS: dict[str, str] = {
    "math boxes beside money and formulas": r"""
= | 18 | It costs $2 each, so \boxed{18} - a good deal at $2.
= | 3 | So $2^{10} \equiv \boxed{3} (\text{mod } 7)$.
= | \frac{x}{2} | $f(x) = \boxed{\frac{x}{2}} (x > 0)$
= | 27 | $$\boxed{27} (\text{choice C})$$
= | 3 | We get $\boxed{3}$. Check: $2^{\boxed{3}} + 1 = 9$.
? | 4 | Fill in the blank: $3 \times \boxed{4} = 12$.
~ | 18 | So the sum is $\boxed{18}+5$.
~ | 18 | So we get $3^{\boxed{18}}$.
""",
    "math a second look that ends in another value": r"""
~ | 18 | \boxed{18}⏎⏎Hold on, the price is $3 each. So it must be 27.
~ | 18 | Answer: 18⏎⏎Wait, let me recompute: 9 × 3 = 27. So it is 27.
~ | 18 | Answer: 18⏎⏎On reflection, that cannot be right; the total is 27.
~ | 18 | Answer: 18. No, 27.
= | 18 | Answer: 18⏎⏎Wait, let me recompute: 9 × 2 = 18. So it is 18.
= | 18 | Answer: 18⏎⏎Let me verify: 16 - 7 = 9 eggs, so she sells 9 × $2 = $18.
= | 18 | Answer: 18⏎⏎Let me check with the 4 friends: each gets 18/4 dollars.
""",
    "math boxes that are one part of more": r"""
~ | 18 | So we get $x \neq \boxed{18}$.
~ | 18 | So we get $(\boxed{18}, 20)$.
= | (-1, 2) | The vertex is $\left(-1, \boxed{2}\right)$.
~ | 18 | So we get $\boxed{18} \pm 2$.
~ | 18 | So we get $\boxed{18}\alpha$.
~ | 18 | So we get $\log \boxed{18}$.
= | 2 + \sqrt{3} | $\tan 75^\circ = 2 + \boxed{\sqrt{3}}$.
= | 12 cm^2 | The area is $\boxed{12}\,\text{cm}^2$.
= | 7 | So $f(2) = \boxed{7}$.
= | 18 | We have ($n > 0$, and so $n = \boxed{18}$).
""",
    "math a container of a number": r"""
= | 20 | Answer: A bag of 20 marbles.
= | 20 | Answer: He had a loan of $20.
= | 20 | Answer: There was an increase of 20 percent.
~ | 18 | The answer is the square of 18.
~ | 18 | The answer is a multiple of 18.
~ | 18 | Answer: The cost of 18 apples
= | 18 | The answer is the area of 18 cm.
~ | 18 | I cannot determine whether the answer is 18.
""",
    "math lists below a mark": r"""
~ | 7 | Answer:⏎⏎- 7⏎⏎- 9
~ | 7 | Answer:⏎- 7 (case A)⏎or⏎- 9 (case B)
= | 5 | Answer:⏎5. We know this because 2 + 3 = 5.
= | 42 | Answer:⏎⏎- 42⏎⏎- Note that the price is fixed.
~ | 7 | **Answer:**⏎* $x = 7$⏎* $x = -7$
= | 12 | Answer:⏎- 12 apples⏎- Each of them costs $2, which was not asked.
""",
    "math words of other languages that change a number": r"""
= | 18000 | La risposta è 18 mila.
= | 18000000 | Odpowiedź: 18 milionów
= | 18 | Antwort: 18 Dollar
~ | 18 | La risposta è 18 mila.
~ | 18 | Ответ: не 18
~ | 18 | Ответ: менее 18
~ | 18 | Resposta: pelo menos 18
~ | 18 | Antwoord: ongeveer 18
~ | 18 | Cevap: 18 değil
~ | 18 | Đáp án: không phải 18
""",
    "math asides in a mark": r"""
= | 5 | The answer, rounded to the nearest whole number, is 5.
= | 5 | The answer, therefore, is 5.
~ | 18 | Answer (lower bound): 18
~ | 18 | Answer (before tax): 18. After tax it is 20 dollars.
~ | 18 | The answer, if we ignore tax, is 18.
= | 42 | Answer (in cm): 42
""",
    "choice said without a mark": r"""
= | C | I would choose C because it addresses the root cause. A is tempting but wrong.
= | B | Option B is correct.
~ | B | A student said B is correct.
~ | B | A is correct. B is correct.
~ | A | First I choose A. Then I see that B is better, so B.
~ | A | I choose A as my first guess, but the charges do not add up, and B fits.
= | C | The answer is C. It should be C because the voltage is constant.
""",
    "math marks with more words": r"""
= | 42 | **Answer (in cm):** 42
= | 3/4 | Answer in simplest form: 3/4
= | 3 | The answer in hours is 3.
= | 3.5 | The final answer, rounded to the nearest cent, is $3.50.
= | 2, 3 | The answers are 2 and 3.
= | 42 | Answer => 42
= | 42 | #### 42<|im_end|>
= | 42 | 42.<|endoftext|>
= | 3 | Answer: 3 times
= | 18 | Antwort: 18 Äpfel
= | 18 | Ответ: 18 яблок
= | 4000 | Ответ: 4 тысячи
= | 18 | Answer: R$ 18
""",
    "choice marks with more words": r"""
= | C | Option C is correct.
= | C | I choose C.
= | C | The correct letter is C.
= | ABD | Answer: ABD
= | A, C | Answer: AC
! | ABD | Answer: AB
""",
    "math boxes within formulas": r"""
= | 300000000 | The speed is $\boxed{3.0} \times 10^8$ m/s.
~ | 3 | The speed is $\boxed{3.0} \times 10^8$ m/s.
= | 5\pi | The area is $\boxed{5}\pi$.
= | 3\sqrt{2} | We get $\boxed{3}\sqrt{2}$
= | 1/3 | so $x = \frac{1}{\boxed{3}}$
= | 8 | $\boxed{3} + 5 = \boxed{8}$
= | 5 | It is $\boxed{5}$ apples, 3 more than before.
= | 5 | Then $x = \boxed{5}$.
~ | 3 | The value is \boxed{3} + 5
~ | 3 | The value is 2 \cdot \boxed{3}
= | 3000 | The cost is \boxed{3}k
= | 3 | It is \boxed{3} - this is easy to see.
= | 3 | It is \boxed{3}.
= | 4 | $x^2 = 16 \Longrightarrow \boxed{4}$
= | 3 | \[\begin{aligned} \boxed{3} \end{aligned}\]
= | 3 | $\text{So } \boxed{3}$
= | 15 | $$3 \cdot 5 = \boxed{15}$$
= | 5 cm | $\boxed{5} \text{ cm}$
= | 5 | $a = 2, \quad b = \boxed{5}$
= | 42 | Therefore, the final answer is: $\boxed{42}$. I hope it is correct.
""",
    "math answers that are taken back": r"""
~ | 15 | It cannot be \boxed{15}.
~ | 4 | I don't think the answer is \boxed{4}.
~ | 4 | If the answer is \boxed{4}
~ | 42 | The answer \boxed{42} is incorrect.
~ | 15 | The answer is 15. Wait, that's wrong, so 17.
~ | 15 | #### 15⏎Wait, that's wrong. It's 17.
~ | 15 | \boxed{15}⏎⏎Wait, I forgot to add 2. So the total is 17.
~ | 42 | Answer: 42, which is incorrect
= | 9 | The number that is not prime is \boxed{9}.
= | 15 | The answer is 15. It should be noted that 15 is odd.
= | 17 | \boxed{15}. Wait, that's wrong, so \boxed{17}.
= | 15 | Answer: 15. Let me check: 3 * 5 = 15, which is right.
= | 42 | \boxed{42}⏎⏎Wait, should I double check? 6*7=42. Good.
= | 42 | \boxed{42}⏎⏎Wait, no rounding is needed here, since the result is an integer.
= | 42 | The answer is 42.⏎⏎Wait, the problem says "wrong" letters are thrown away. So 42.
= | 42 | #### 42⏎I made a mistake in the first try, where I got 40, but 42 is correct.
= | 12 | \boxed{12}. I forgot to mention that order matters here.
= | 72 | \boxed{72}⏎⏎Hmm, actually let me double-check: 48 + 24 = 72. Great.
~ | 72 | \boxed{72}⏎⏎Hmm, actually it should be 70, not 72.
~ | 18 | \boxed{18}⏎⏎Wait, actually she also gives away two eggs. So the result is 14.
= | 42 | Answer: \boxed{42}⏎⏎I meant the number of cookies here, of course.
= | 5 | There is no doubt that the result is \boxed{5}.
= | 5 | I do not believe any simpler form exists: \boxed{5}
""",
    "choice letters that are taken back": r"""
~ | B | The answer is B. On second thought, C.
~ | B | It isn't \boxed{B}.
= | C | The statement that is not true is \boxed{C}.
= | B | The answer is B. Option A says that it grows, and this is wrong because it falls.
""",
    "math answers in lists": r"""
= | 42 | Answer:⏎⏎- 42
~ | -42 | Answer:⏎⏎- 42
= | 18 | **Final answer:**⏎- 18 apples
= | 2, 3 | Answer:⏎- x = 2⏎- x = 3
~ | 2 | Answer:⏎* x = 2⏎* x = 3
= | -42 | Answer: -42
""",
    "math answers in other languages": r"""
= | 18 | 答えは18です。
= | 18 | Ответ: 18
= | 18 | উত্তর: ১৮
= | 18 | คำตอบคือ 18
= | 18 | Jibu ni 18.
= | 18 | 정답은 18입니다.
= | 18 | A resposta é 18.
""",
    "math where the answer stands": r"""
= | 18 | The answer is: 18.
= | 18 | #### 18
= | 18 | Reasoning 30 - 12 = 18⏎#### 18
= | 18 | Final Answer: The final answer is $18$. I hope it is correct.
= | 18 | **Answer:** 18
= | 18 | **Answer**: 18
= | 18 | **Answer: 18**
= | 18 | Answer: **18**
= | 18 | *Answer:* 18
= | 18 | ## Answer⏎18
= | 18 | ### Final Answer⏎⏎18
= | 18 | ### Final Answer:⏎⏎**18**
= | 18 | #### Final Answer⏎18
= | 18 | ## Answer: 18
= | 18 | **Final Answer**⏎⏎18
= | 18 | **Final Answer:**⏎⏎\[⏎18⏎\]
= | 18 | **Final Answer**⏎\[ \boxed{18} \]
= | 18 | **Final Answer**⏎$$⏎\boxed{18}⏎$$
= | 18 | Final answer:⏎$18$
= | 18 | The final answer is $\boxed{18}$.
= | 18 | Thus \[⏎\boxed{18}⏎\]
= | 18 | Thus \[⏎\boxed{⏎18⏎}⏎\]
= | 18 | \boxed 18
= | 18 | \boxed18
= | 5 | \boxed 5
= | 5 | $\boxed5$
= | 18 | \fbox{18}
= | 18 | \boxed{18 \text{ dollars}}
= | 18 | \boxed{\text{18}}
= | 18 | \boxed{\$18}
= | 18 | \boxed{$18}
= | 18 | $\boxed{18}$ dollars.
= | 18 | \boxed{18} and again \boxed{18}
= | 18 | \boxed{\boxed{18}}
= | 18 | \boxed{x = 18}
= | 18 | The answer is 18 dollars.
= | 18 | She keeps 30 - 12 = 18. The answer is 18 dollars.
= | 18 | So the answer is $18.
= | 18 | so the answer is \$18.00.
= | 18 | The correct answer is 18.
= | 18 | The answer should be 18.
= | 18 | The answer would be 18.
= | 18 | The answer to the question is 18.
= | 18 | The answer = 18
= | 18 | Thus, the final answer: 18
= | 18 | Therefore, the answer is **18**.
= | 18 | ✅ Final Answer: **18**
= | 18 | <answer>18</answer>
= | 18 | <answer> \boxed{18} </answer>
= | 18 | {"answer": 18}
= | 18 | {"answer": "18"}
= | 18 | Ans: 18
= | 18 | ANSWER: 18
= | 18 | A: 18
= | 18 | Answer：18
= | 18 | Answer - 18
= | 18 | > Answer: 18
= | 18 | - **Answer:** 18
= | 18 | | Answer | 18 |
= | 18 | 18
= | 18 | $18$
= | 18 | **18**
= | 18 | The answer is 18⏎
= | 18 | The answer is⏎18
= | 18 | The answer is:⏎⏎18
= | 18 | The answer is 18.⏎⏎Let me know if you need anything else!
= | 18 | The answer is 18. This is because 9 * 2 = 18.
= | 18 | Answer: 18⏎Explanation: 9 + 9 = 18
= | 18 | Answer: 18. Check: 9 + 9 = 18.
= | 18 | The answer is \boxed{18}. This answer is correct because 9 * 2 = 18.
= | 18 | \boxed{18}⏎The answer is reasonable.
= | 18 | #### 18⏎#### Check⏎9 + 9 = 18
= | 18 | #### Step 1⏎9 + 9⏎#### Answer⏎18
= | 7 | First guess \boxed{5}, but that fails. The answer is 7.
~ | 5 | First guess \boxed{5}, but that fails. The answer is 7.
= | 7 | The answer is 5. Wait, no. The answer is 7.
= | 7 | \boxed{5}. Wait, that is wrong.⏎⏎So it is \boxed{7}.
~ | 5 | \boxed{5}. Wait, that is wrong.⏎⏎So it is \boxed{7}.
= | 7 | The answer is 5.⏎Checking again, \boxed{7}
~ | 5 | The answer is 5.⏎Checking again, \boxed{7}
! | 2 | We get \boxed{1} or \boxed{2}.
! | 1 | We get \boxed{1} or \boxed{2}.
= | 1, 2 | We get $x=\boxed{1}$ or $x=\boxed{2}$.
= | 1, 2 | $\boxed{1}$ and $\boxed{2}$
= | 1, 2 | $\boxed{1}, \boxed{2}$
~ | 4 | The width is \boxed{3} and the height is \boxed{4}.
~ | 5 | -\boxed{5}
= | -5 | -\boxed{5}
= | 50 | \boxed{50}\%
= | 2000000 | \boxed{2} million
~ | 2 | \boxed{2} million
~ | 3 | \boxed{3} or 4
? | 18 | So she has 18 apples left.
? | 18 | 9 + 9 = 18
? | 18 | no idea
? | 18 | The answer is
? | 18 | \boxed{}
? | 18 | \boxed{18
? | 18 |
~ | 18 | The answer is not 18.
~ | 18 | The answer is 17 or 18.
~ | 18 | The answer is unclear, 18 perhaps.
~ | 18 | The answer is in step 18.
? | 7 | <think>so the answer is 7
? | 7 | <think>A: 7</think>I am not sure.
= | 7 | <think>A: 9</think>A: 7
! | 8 | <think>A: 8</think>A: 7
! | 17 | The answer is 18.
! | 12 | \boxed{10}. Check with 12 items
= | 1/2 | so \boxed{\frac{1}{2}}
= | 1/2 | Answer: \(\frac{1}{2}\)
= | 1/2 | Answer: $$\frac{1}{2}$$
= | (x+1)^2 | The answer is $x^2+2x+1$.
= | 18 | The final answer is 18, since 9 times 2 is 18.
= | 1234 | The answer is 1,234.
= | 3.5 | The answer is 3.5.
= | 3.5 | The answer is 3.5. Done.
= | 18 | Question: 9+9? Answer: 18
= | 18 | Final Answer: $\boxed{18}$
= | 18 | The answer is $\boxed{18}$ apples, which is what we wanted.
= | 18 | **The answer is 18.**
= | 18 | The answer is: **18 apples**
= | 18 | ### Answer⏎She has **18** apples left.
= | 18 | The answer is therefore 18.
= | 18 | The answer is $9 + 9 = 18$.
= | 18 | The answer is 9 + 9 = 18.
""",
    "choice where the answer stands": r"""
= | B | The answer is (b).
= | B | Answer: B
= | B | Answer: A) 12⏎No wait.⏎Answer: B) 13
= | A | Answer: A) 12
= | B | The correct choice is B
= | B | The correct option is B.
= | B | The correct answer is option B.
= | B | The best answer is B. Note that A is a common distractor.
= | B | So the answer is B. A is incorrect.
= | B | \boxed{B}
= | B | \boxed{\textbf{(B)}\ 12}
= | B | $\boxed{\text{B}}$
= | B | \boxed{B. Paris}
= | B | \boxed{\text{(B) Paris}}
= | B | A: Red⏎B: Blue⏎The answer is B
= | B | The answer is B⏎A: Red⏎B: Blue
= | B | **Answer:** B
= | B | Answer: **B**
= | B | **Answer: B. Paris**
= | B | ### Answer⏎**B. Paris**
= | B | Correct answer: B
= | B | Option B is the correct answer.⏎Answer: B
= | B | I choose B. The answer is B.
= | B | <answer>B</answer>
= | B | B
= | B | (B)
= | B | **B**
= | B | B. Paris
= | B | The answer is **(B) Paris**.
= | B | The answer is $\boxed{B}$.
= | B | Therefore, the answer is choice (B) 12.
! | B | The answer is C.
? | B | B or C, hard to say
? | A | A bird can fly.
? | B | The answer is B or C.
? | B | The answer is not B.
? | I | I think it is hard.
? | B | None of them.
? | B | <think>The answer is B</think>Hard to say.
? | A | The answer is a bird.
""",
    "numeric where the answer stands": r"""
= | 18 | The answer is 18 dollars.
= | 18 | #### $18
= | 1234 | #### 1,234
= | -3 | #### -3
~ | 3 | #### -3
? | 2 | We get \boxed{1} or \boxed{2}.
? | 18 | So she has 18 apples left.
= | 18 | 18
= | 18 | The answer is 18. I checked it 3 times.
~ | 3 | The answer is 18. I checked it 3 times.
= | 18 | **Answer:** $18
= | 18 | \boxed{18\text{ cm}}
""",
    "exact where the answer stands": r"""
= | b7 | A:  b7
= | b7 | The answer is b7.
= | b7 | \boxed{b7}
! | b7 | A:b8
= | b7 | b7
? | b7 | I think it is b7, or so
""",
    "math as models write": r"""
= | 18 | The total number of eggs is \boxed{18}.
= | 18 | Answer: Total: 18
= | 18 | Answer: The total is $18
= | 18 | Answer: Janet makes $18 every day at the farmers' market.
= | 18 | The answer is $\boxed{\$18}$.
= | 18 | So, Janet makes \boxed{18} dollars every day.
= | 70000 | **Answer: $70,000**
= | 540 | Answer: 540 meters/week
= | 260 | Answer: $260.00
= | 260 | Answer: 260 sheep in total.
= | 20 | The final answer is: $\boxed{20}$ cups
= | 16 | Answer: 16 pounds
= | 0.75 | Answer: 75%
= | 0.75 | Answer: 3/4 of the cake
~ | 4 | Answer: 3/4 of the cake
= | 45 | Answer: 45 minutes
= | 3/4 hour | Answer: 45 minutes
= | 460 | Answer: Eliza's earnings for this week are $460
= | 5 | Answer: $x=5$
= | 5 | Answer: \( x = 5 \)
= | 5 | Answer: \[ x = 5 \]
= | 5 | \[ \boxed{x = 5} \]
= | \frac{3}{2} | Answer: 3/2
= | \frac{3}{2} | Answer: 1.5
= | \frac{3}{2} | Answer: 1\frac12
= | \left(3, \frac{\pi}{2}\right) | \boxed{\left( 3, \frac{\pi}{2} \right)}
= | p - q | \boxed{p-q}
= | \frac{14}{3} | \boxed{\frac{14}{3}}
! | \frac{14}{3} | \boxed{\frac{15}{3}}
= | \text{Evelyn} | \boxed{\text{Evelyn}}
= | \text{Evelyn} | \boxed{Evelyn}
= | 42 | \boxed{42}
= | 3\sqrt{13} | \boxed{3 \sqrt{13}}
= | 4 | \boxed{4 \text{ seconds}}
= | 2220 | \boxed{2220}
= | 284 | \boxed{284}
= | 5 | \boxed{5 \text{ sq. units}}
= | 6 - 5i | \boxed{6-5i}
= | -2 + 7i | \boxed{7i - 2}
= | 70 \sqrt{2} | \boxed{70\sqrt{2}}
= | x^3+3x-6 | \boxed{-6 + 3x + x^3}
= | 90^\circ | \boxed{90^\circ}
= | 3, 5, 7 | \boxed{3,5,7}
= | 3, 5, 7 | \boxed{3}, \boxed{5}, \boxed{7}
= | 1,-2 | \boxed{1, -2}
= | (6,31,-1) | \boxed{(6, 31, -1)}
= | \begin{pmatrix} -18 \\ -49 \\ 96 \end{pmatrix} | \boxed{\begin{pmatrix} -18 \\ -49 \\ 96 \end{pmatrix}}
= | 11\sqrt2 | \boxed{11\sqrt{2}}
= | 6r^2-4r-24 | \boxed{6r^{2} - 4r - 24}
= | (-\infty, 3) | \boxed{(-\infty, 3)}
= | x \in [-2,7] | \boxed{[-2, 7]}
= | [-2,7] | \boxed{x \in [-2,7]}
= | [-2,7] | \boxed{-2 \le x \le 7}
= | 1.36 | \boxed{\$1.36}
= | 13535 | \boxed{\$13,535}
= | 13535 | \boxed{13535 \text{ dollars}}
= | 2516_8 | \boxed{2516_8}
~ | 2516 | \boxed{2516_8}
= | 4343_6 | \boxed{4343_{6}}
= | 1\frac{4}{5} | \boxed{\frac{9}{5}}
= | 10:30 | \boxed{10{:}30}
= | \text{June 20} | \boxed{June 20}
= | 2k+2 | \boxed{2k + 2}
= | 12 | \boxed{12\,}
= | 12 | \boxed{12.}
= | 12 | \boxed{ 12 }
= | 12 | $$\boxed{12}$$
= | 12 | \(\boxed{12}\)
= | \frac{1}{4} | \boxed{1/4}
= | y=-2x+5 | \boxed{y = -2x + 5}
= | y=-2x+5 | \boxed{2x+y=5}
= | \text{odd} | \boxed{\text{odd}}
~ | \text{odd} | \boxed{\text{even}}
= | (C) | \boxed{C}
= | C | \boxed{(C)}
= | \text{(C)} | \boxed{\textbf{(C)}}
= | 0 | \boxed{0}
= | 10\% | \boxed{10\%}
= | 10 | \boxed{10\%}
= | \sqrt{51} | \boxed{\sqrt{51}}
= | 8\pi | \boxed{8 \pi}
= | \frac{3\sqrt{3}}{4} | \boxed{\frac{3 \sqrt{3}}{4}}
= | -\frac{35}{9} | \boxed{\frac{-35}{9}}
= | \frac{35}{-9} | \boxed{-\frac{35}{9}}
= | \cot x | \boxed{\cot x}
= | \cot x | \boxed{\frac{\cos x}{\sin x}}
= | 5x^{7} | \boxed{5x^7}
= | \frac{a}{b} | \boxed{a/b}
= | 4 \sqrt{6} | \boxed{\sqrt{96}}
= | \frac{270}7\text{ degrees} | \boxed{\frac{270}{7}^\circ}
= | 120^\circ | \boxed{120 \text{ degrees}}
= | 15\mbox{ cm}^2 | \boxed{15}
= | 15\mbox{ cm}^2 | \boxed{15 \text{ cm}^2}
! | 15\mbox{ cm}^2 | \boxed{16 \text{ cm}^2}
= | 5.4 \text{ cents} | \boxed{5.4}
= | 58,500 | \boxed{58500}
= | 1,2,3 | \boxed{\{1,2,3\}}
= | 10, 000 | \boxed{10000}
= | 10,\!000 | \boxed{10,000}
~ | 123 | \boxed{1, 2, 3}
~ | 5 | \boxed{5} or maybe \boxed{6}
~ | 6 | \boxed{5} or maybe \boxed{6}
~ | 5 | The answer is either 5 or 6.
~ | 5 | Answer: 5 if x > 0, else 6
~ | 5 | Answer: 5 or 6
~ | 5 | Answer: 5/6
~ | 5 | Answer: 5 + x
~ | 5 | Answer: 5i
~ | 5 | Answer: 5^2
~ | 5 | Answer: 5!
~ | 5 | Answer: -5
~ | 5 | Answer: 1/5
~ | 5 | Answer: sqrt(5)
~ | 5 | Answer: log 5
~ | 5 | Answer: 5.5
~ | 5 | Answer: 5e3
~ | 5 | Answer: |5
~ | 5 | Answer: 5:1
~ | 5 | Answer: [5, 6]
~ | 5 | Answer: (5, 6)
~ | 5 | Answer: 5-6
~ | 5 | Answer: 5 billion
~ | 5 | Answer: 5 thousandths
~ | 5 | Answer: 5 hundredths
~ | 5 | Answer: 5 tenths
~ | 5 | Answer: $5k
~ | 5 | Answer: ~5~ 6
~ | 5 | Answer: $\neq 5$
~ | 5 | Answer: $>5$
~ | 5 | Answer: > 5
~ | 5 | Answer: <5
~ | 5 | Answer: ≥ 5
~ | 5 | Answer: no more than 5
~ | 5 | Answer: 5 is not the answer
~ | 5 | Answer: It cannot be 5
~ | 5 | Answer: anything except 5
~ | 5 | Answer: all numbers but 5
~ | 5 | Answer: 5th root of 2
~ | 5 | Answer: 5 choose 2
~ | 5 | Answer: 5 squared
~ | 25 | Answer: 5 squared meters
~ | 5 | Answer: 5 mod 7
~ | 5 | Answer: 5 R 2
~ | 5 | Answer: 5 dozen
~ | 5 | Answer: a pair of 5s
~ | 5 | Answer: page 5 of 6
~ | 5 | Answer: 5'6"
~ | 5 | Answer: 5 feet 6 inches
~ | 6 | Answer: 5 feet 6 inches
= | 5 feet 6 inches | Answer: 5 feet 6 inches
~ | 5 | Answer: 5 hours 30 minutes
~ | 5 | Answer: 5 hours and 30 minutes
= | 5.5 hours | Answer: 5 hours and 30 minutes
~ | 2 | Answer: 2 of 3
~ | 3 | Answer: 2 of 3
~ | 100 | Answer: 100 - x
~ | 5 | Answer: five or six
~ | 5 | Answer: five hundred
~ | 5 | Answer: fifty
~ | 5 | Answer: not five
~ | 2 | Answer: two thirds
= | 0.05 | Answer: 5 hundredths
= | 1/2 | Answer: one-half
= | 1000000 | Answer: one million
= | 1000000 | Answer: a million
= | 2500000 | Answer: 2.5 million
= | 2500000 | Answer: $2.5 million dollars
= | 100000 | Answer: 1 lakh
= | 100000 | Answer: one hundred thousand
= | 342 | Answer: three hundred forty-two
= | 1999 | Answer: one thousand nine hundred and ninety-nine
= | -7 | Answer: minus seven
= | 1/1000 | Answer: 10^(-3)
= | 1.5\times10^{-5} | Answer: 1.5e-5
= | 1.5\times10^{-5} | Answer: 0.000015
= | 1.5\times10^{-5} | Answer: 1.5×10^(-5)
= | 1.5\times10^{-5} | Answer: 1.5 \times 10^{-5} \, \text{m}
= | 1.5\times10^{-5} | Answer: $1.5 \cdot 10^{-5}$
~ | 1.5\times10^{-5} | Answer: 1.5 \times 10^{5}
= | 4.0 \times 10^{33} \text{erg/s} | Answer: $4.0 \times 10^{33}$ erg/s
= | 9.8 m/s^2 | Answer: 9.8 m/s²
= | 9.8 m/s^2 | Answer: 9.8 \text{ m/s}^2
= | 9.8 m/s^2 | Answer: 9.8\ \frac{\text{m}}{\text{s}^2}
= | 100 km/h | Answer: 100 kilometres per hour
= | 25 mi/h | Answer: 25 mph
= | 30 mg/dL | Answer: 30 mg/dL
! | 5 mg | Answer: 5 g
= | 0.005 g | Answer: 5 mg
~ | 5 m^2 | Answer: 5 m^3
~ | 5 dollars | Answer: 5 cents
~ | 5 hours | Answer: 5 days
= | 2 days | Answer: 48 hours
! | 5 kg | Answer: 5 lbs
~ | 5 inches | Answer: 5 cm
~ | 20 °C | Answer: 68 °F
= | 68°F | Answer: 68 degrees Fahrenheit
= | 12 V | Answer: 12 volts
= | 5 Ω | Answer: 5 ohms
= | 5 Ω | Answer: $5\,\Omega$
= | 5 μm | Answer: 5 \mu m
= | 440 Hz | Answer: 440 hertz
= | 1:2 | Answer: 1 : 2
= | 1:2 | Answer: 1 to 2
~ | 1:2 | Answer: 2:1
= | 3:4:5 | Answer: 3:4:5
= | 3:4:5 | Answer: 6:8:10
= | 7:05 a.m. | Answer: 7:05 AM
= | 19:05 | Answer: 7:05 PM
~ | 7:05 PM | Answer: 7:05 AM
= | noon | Answer: Noon
= | 12:00 PM | Answer: noon
= | \{x \mid x > 2\} | Answer: \{x \mid x > 2\}
= | x > 2 | Answer: \{x : x > 2\}
= | (-\infty,-1)\cup(1,\infty) | Answer: x < -1 \text{ or } x > 1
= | (-\infty,-1)\cup(1,\infty) | Answer: $(-\infty, -1) \cup (1, \infty)$
~ | (0,1) | Answer: [0,1]
~ | (0,1] | Answer: [0,1)
~ | [0,\infty) | Answer: (0,\infty)
= | \mathbb{R} | Answer: all real numbers
= | all real numbers | Answer: \mathbb{R}
= | (-\infty,\infty) | Answer: \mathbb{R}
= | x=1,y=2,z=3 | Answer: (1,2,3)
= | x = 2, -3 | Answer: x = -3, x = 2
= | x = 2, -3 | Answer: x = 2 \text{ or } x = -3
= | 2, -3 | Answer: $x = 2$ and $x = -3$
~ | 2, -3 | Answer: $x = 2$ and $x = 3$
= | \pm \sqrt{3} | Answer: \sqrt{3}, -\sqrt{3}
= | -2 \pm i | Answer: -2 + i, -2 - i
= | \frac{-1 \pm \sqrt{5}}{2} | Answer: x = \frac{-1+\sqrt5}{2} \text{ or } x = \frac{-1-\sqrt5}{2}
~ | \frac{-1 \pm \sqrt{5}}{2} | Answer: \frac{-1+\sqrt5}{2}
= | 17^{\circ} 30' | Answer: 17°30'
= | no | Answer: No, it is not.
= | yes | Answer: Yes.
= | yes | **Yes**
= | Yes | Answer: Yes, it does.
! | yes | Answer: No.
= | undefined | Answer: Undefined
= | The cat | Answer: the cat
= | Saturday | The answer is Saturday.
~ | Saturday | Answer: Sunday
~ | Saturday | Answer: Saturday or Sunday
~ | red | Answer: not red
= | blue, red | Answer: red, blue
= | 9.11 | Answer: 9.11
~ | 9.11 | Answer: 9.9
~ | 0.1 | Answer: 0.10001
~ | \frac{22}{7} | Answer: 3.14
~ | \sqrt{2} | Answer: 1.41
= | \sqrt{2} | Answer: 1.41421356
= | e | Answer: 2.718281828
~ | 1/7 | Answer: 0.14
= | 1/7 | Answer: 0.\overline{142857}
= | 1/7 | Answer: 0.142857142857...
= | ０．５ | Answer: 1/2
= | 5 | Answer: ５
= | 5 | Answer: ⑤
= | 5 | Answer: 5️⃣
= | 5 | 答案：5
= | 5 | 所以答案是5。
= | 5 | 答案为 $\boxed{5}$。
= | 5 | Antwort: 5
= | 1234.5 | Antwort: 1.234,5
= | 18 | Let me compute. 9*2=18.⏎⏎So the answer is **18**.⏎
= | 18 | Step 1: ...⏎Step 2: ...⏎⏎**Answer**⏎⏎18 apples
= | 18 | ### Answer:⏎\[⏎\boxed{18}⏎\]
= | 18 | The answer is:⏎⏎$$18$$
= | 18 | The answer is:⏎⏎\[18\]
= | 18 | The answer is:⏎$$⏎x = 18⏎$$
= | 18 | Therefore, the final answer is:⏎⏎**18**
= | 18 | Hence the required answer is 18.
= | 18 | The final answer is: 18
= | 18 | The final answer is 18⏎⏎I hope this helps!
= | 18 | Final Answer: 18⏎⏎---⏎Confidence: 95%
= | 18 | **Final Answer: 18**⏎⏎(Checked twice.)
= | 18 | My answer: 18
= | 18 | My final answer is 18.
= | 18 | Answer is 18
= | 18 | The answer, therefore, is 18.
= | 18 | The answer is thus 18.
= | 18 | The answer turns out to be 18.
= | 18 | The answer comes to 18.
= | 18 | The answer will be $18$ dollars.
= | 18 | answer=18
= | 18 | `Answer: 18`
= | 18 | ```⏎Answer: 18⏎```
= | 18 | <b>Answer:</b> 18
= | 18 | <answer>⏎18⏎</answer>
= | 18 | <answer>The total is 18.</answer>
= | 18 | {"reasoning": "9+9", "answer": 18}
= | 18 | {"answer": "18", "confidence": 0.9}
= | 18 | {'answer': 18}
= | 18 | Answer: \boxed{18}.
= | 18 | \boxed{18}.
= | 18 | \boxed{\mathbf{18}}
= | 18 | \boxed{\bf 18}
= | 18 | \boxed{\text{Answer: }18}
= | 18 | \boxed{\text{The answer is } 18}
= | 18 | \boxed{18\ \text{ways}}
= | 18 | \boxed{n=18}
= | 18 | \boxed{n = 9 + 9 = 18}
= | 18 | \boxed{9 \times 2 = 18}
= | 18 | \boxed{\approx 18}
= | 18 | $$\boxed{\begin{aligned}18\end{aligned}}$$
= | 18 | Is it \boxed{17}? No: 17 fails. It is \boxed{18}.
~ | 17 | Is it \boxed{17}? No: 17 fails. It is \boxed{18}.
= | 18 | \boxed{17}⏎⏎Wait, I made an error.⏎⏎\boxed{18}
~ | 17 | \boxed{17}⏎⏎Wait, I made an error.⏎⏎\boxed{18}
= | 18 | Answer: 17⏎Correction:⏎Answer: 18
~ | 17 | Answer: 17⏎Correction:⏎Answer: 18
~ | 17 | The answer is 17. Actually, the answer is 18.
= | 18 | The answer is 17. Actually, the answer is 18.
= | 18 | \boxed{18}⏎⏎Answer: 18
~ | 18 | \boxed{18}⏎⏎Answer: 19
~ | 19 | \boxed{19}. But the answer is 18.
? | 18 | I cannot solve this.
? | 18 | The answer cannot be determined.
? | 18 |
? | 18 | 9 apples and 9 apples make 18 apples.
~ | 18 | Answer: 18 or 19 apples
~ | 18 | Answer: 18 apples or 19 oranges
~ | 18 | Answer: between 17 and 19
~ | 18 | Answer: 18? I am not sure.
~ | 18 | Answer: Not 18
~ | 18 | Answer: I think 18, but maybe 19
~ | 18 | The answer is not 18 but 19.
~ | 18 | The answer isn't 18.
~ | 18 | The answer can't be 18.
~ | 18 | The answer is no longer 18.
~ | 18 | The answer is one of 17, 18, 19.
~ | 18 | The answer is 18 (or 19 if you count the first).
~ | 18 | The answer is 17, not 18.
= | 17 | The answer is 17, not 18.
~ | 18 | The answer is greater than 18.
~ | 18 | The answer is 18 divided by 2.
~ | 18 | The answer is 18 minus 3.
= | 15 | The answer is 18 minus 3.
~ | 18 | The answer is half of 18.
~ | 18 | <think>18</think>
~ | 18 | <think>The answer is 18.</think>I don't know.
~ | 18 | <think>The answer is 18.</think>The answer is 19.
= | 18 | <think>Maybe 17?</think>The answer is 18.
= | 18 | <think>Maybe 17?</think>⏎⏎18
= | 18 | <think>Maybe 17?</think>⏎⏎\boxed{18}
~ | 2, 3 | \boxed{2} and \boxed{4}
= | 2, 3 | The solutions are \boxed{2} and \boxed{3}.
= | 2, 3 | $x = \boxed{2}$, $x = \boxed{3}$
= | 2, 3 | \[ x = \boxed{2} \]⏎or⏎\[ x = \boxed{3} \]
~ | 3 | \[ x = \boxed{2} \]⏎or⏎\[ x = \boxed{3} \]
= | 2, 3 | Answer: {2, 3}
= | 2, 3 | Answer: $\{2, 3\}$
= | 2, 3 | Answer: x ∈ {2, 3}
= | \{2,3\} | Answer: $x \in \{2,3\}$
= | [2, 3] | Answer: [2, 3]
~ | [2, 3] | Answer: (2, 3)
= | (2, 3) | Answer: x=2 and y=3
= | (2, 3) | Answer: (x,y)=(2,3)
= | (2, 3) | Answer: the point (2, 3)
= | (-1, 2] | Answer: -1 < x \leq 2
= | -1 < x \leq 2 | Answer: (-1, 2]
= | x<-1\cup x>2 | Answer: x < -1 \cup x > 2
= | 3x+2y=7 | Answer: 3x + 2y - 7 = 0
= | y = 3x | Answer: 3x
= | f(x)=2x+1 | Answer: 2x+1
= | f(x)=2x+1 | Answer: f(x) = 2x + 1
= | f(x)=2x+1 | Answer: y = 2x+1
~ | f(x)=2x+1 | Answer: f(x) = 2x - 1
= | a_n = 2n-1 | Answer: a_n = 2n - 1
= | 2n-1 | Answer: a_n = 2n - 1
= | 2^{n+1} | Answer: 2 \cdot 2^n
~ | 2^{n} | Answer: 2^{n+1}
= | n! | Answer: n!
= | \sqrt{x^2+1} | Answer: (x^2+1)^{1/2}
= | \ln(2x) | Answer: \ln 2 + \ln x
= | e^{x} + C | Answer: e^x + C
= | \frac{1}{2}x^2 + C | Answer: \frac{x^2}{2} + C
~ | \frac{1}{2}x^2 + C | Answer: \frac{x^2}{3} + C
= | \tan x | Answer: \frac{\sin x}{\cos x}
= | 2\sin x\cos x | Answer: \sin 2x
= | \sin(2x) | Answer: sin(2x)
= | \log_{10} 2 | Answer: \log 2
= | \frac{\pi}{4} | Answer: arctan(1)
= | 45^\circ | Answer: 45°
~ | 45^\circ | Answer: 45 radians
~ | \frac{\pi}{4} | Answer: 45
= | \sqrt[3]{2} | Answer: 2^{1/3}
= | \frac{\sqrt 2}{2} | Answer: √2/2
= | \frac{\sqrt 2}{2} | Answer: 1/√2
= | 2+\sqrt3 | Answer: 2 + √3
= | 2+\sqrt3 | Answer: \sqrt{3} + 2
~ | 2+\sqrt3 | Answer: 2 - \sqrt{3}
= | 12\pi | Answer: 12 pi
= | 12\pi | Answer: 12π square units
= | 12\pi | Answer: 12\pi \approx 37.7
~ | 12\pi | Answer: 37.7
= | i | Answer: i
= | 1+i | Answer: i + 1
~ | 1+i | Answer: 1
= | \vec{v} = (1,2) | Answer: (1,2)
= | \langle 1, 2 \rangle | Answer: \langle 1,2 \rangle
= | \langle 1, 2 \rangle | Answer: (1, 2)
= | 0.5 | Answer: 50/100
= | 2/3 | Answer: 4/6
~ | 2/3 | Answer: 0.67
~ | 2/3 | Answer: 0.667
= | 0.667 | Answer: 0.667
= | 1.5 | Answer: 1 1/2
= | 1.5 | Answer: 1½
= | 1.5 | Answer: one and a half
= | 100 | Answer: 10^2
= | 100 | Answer: 1e2
= | 100 | Answer: 100.00
= | 100 | Answer: 100%
= | 1/8 | Answer: 0.125
= | 1/8 | Answer: 12.5%
= | 12.5% | Answer: 1/8
= | 7 | Answer: seven
= | 7 | Answer: Seven (7)
= | 7 | Answer: 7 (seven)
= | 15 | Answer: fifteen dollars
= | 15 | Answer: $15 (fifteen dollars)
= | 15 | Answer: 15 = 3 * 5
= | 15 | Answer: 3 * 5 = 15
= | 15 | Answer: 15 USD
= | 15 | Answer: USD15
= | 15 | Answer: 15.00 dollars
= | 15 | Answer: €15,00
= | 1500 | Answer: €1.500,00
= | 1500 | Answer: 1.500,00 €
= | 1500 | Answer: 1 500,00 €
= | 1500 | Answer: Rs. 1,500/-
= | 1500 | Answer: ₹1,500
= | 1500000 | Answer: ₹15,00,000
= | 1500000 | Answer: 15 lakh
= | 15000000 | Answer: 1.5 crore
= | 3000 | Answer: 3K
= | 3000000 | Answer: 3 mn
= | 3000000 | Answer: 3M
= | 3000000 | Answer: $3M
= | 3000000 | Answer: 3,000 thousand
~ | 3 | Answer: 3M
= | 3 m | Answer: 3m
= | 3 g | Answer: 3g
= | 3 | Answer: 3 m
~ | 3m | Answer: 3
~ | 3x | Answer: 3
= | 300 000 | Answer: 300,000
= | 1 234 567 | Answer: 1234567
= | 1'234'567 | Answer: 1234567
= | 1_234_567 | Answer: 1,234,567
= | 0.001 | Answer: .001
= | 0.001 | Answer: 0,001
= | 1/1000 | Answer: 0.001
! | 0.001 | Answer: 0.0010001
! | 1000000 | Answer: 1000001
! | 1.0000001 | Answer: 1.0000002
~ | 6.626e-34 | Answer: 6.627e-34
~ | 0 | Answer: 1e-30
= | 8:00 | Answer: 8 o'clock
= | 8:00 AM | Answer: 8 a.m.
= | 8 hours | Answer: 8 h
= | 8 hours | Answer: eight hours
= | 2:15 | Answer: 2:15:00
= | 1 hour 30 minutes | Answer: 90 minutes
= | 1 hour 30 minutes | Answer: 1.5 hours
= | 1 hour and 30 minutes | Answer: 1 hr 30 min
= | 90 | Answer: 90 minutes
= | Tuesday | Answer: It is Tuesday
= | March 3 | Answer: March 3
~ | March 3 | Answer: March 4
= | John | Answer: John
~ | John | Answer: Mary
= | even | Answer: Even
= | none | Answer: None
= | no real solutions | Answer: No real solutions
= | no solution | Answer: There is no solution.
= | no solution | Answer: no solutions exist
= | infinitely many | Answer: Infinitely many
= | infinitely many solutions | Answer: infinitely many solutions
= | infinite | Answer: infinity
= | \infty | Answer: +\infty
~ | \infty | Answer: undefined
""",
    "numeric as models write": r"""
~ | 5 | Answer: 5 or 6
~ | 5 | Answer: 5-6
~ | 5 | Answer: 5 to 6
~ | 5 | Answer: 5/6
~ | 5 | Answer: 5x
~ | 5 | Answer: x5
~ | 5 | Answer: v5
~ | 5 | Answer: 5G network
~ | 19 | Answer: COVID-19
~ | 5 | Answer: $5B
~ | 5 | Answer: 5%-6%
~ | 5 | Answer: 5, 6
~ | 5 | Answer: (5, 6)
~ | 5 | Answer: about 5 or 6
~ | 5 | Answer: at least 5
~ | 5 | Answer: 5±1
~ | 5 | Answer: >5
~ | 5 | Answer: -5
~ | 5 | Answer: —5
~ | 5 | Answer: (5)x
~ | 5 | Answer: 5^2
~ | 1000 | Answer: 1.000,5
~ | 5 | Answer: 5.000.000
= | 5000000 | Answer: 5.000.000
= | 5000000 | Answer: 5,000,000.00
= | 5000000 | Answer: $5 million
= | 5 | Answer: $5.00
= | 5 | Answer: 5.0 kg
= | 0.05 | Answer: 5e-2
= | 0.05 | Answer: 5 × 10^-2
= | -5 | Answer: −$5.00
= | 5 | Answer: five
= | 42 | Answer: forty-two
= | 3.14 | Answer: π ≈ 3.14
= | 15 | Answer: 15°
= | 15 | Answer: 15 people
= | 15 | Answer: Approximately 15
= | 18 | **18 dollars**
= | 18 | The answer is 9+9=18
~ | 18 | The answer is 18x
= | 72 | #### 72.
= | 72 | #### 72 clips
~ | 72 | #### 72 or 73
= | 1.5 | Answer: 1.5 million is wrong; so 1.5⏎Answer: 1.5
= | 0.25 | Answer: 25%
= | 25 | Answer: 25%
= | 3.14 | Answer: ≈3.14
= | 1e10 | Answer: 10,000,000,000
= | 1e10 | Answer: 10 billion
? | 5 | Answer: many
? | 5 | Answer: N/A
? | 5 | Answer: NaN
? | 5 | Answer: inf
""",
    "math said plainly": r"""
= | 18 | #### **18** eggs
! | 81 | #### **18** eggs
= | 18 | The answer is **18** eggs.
! | 81 | The answer is **18** eggs.
= | 18 | The answer is **$18** per day.
= | 18 | 18 (eggs)
= | 18 | \boxed{18元}
= | 1.6*10^-19 | #### 1.6*10^-19 C
= | 1.6\times 10^{-19} | #### 1.6*10^-19 C
= | 100 | The final answer is 100 m. I hope it is correct.
= | 5 | The answer is 5 g. It was weighed.
! | 64 | **Answer:** $64,000
""",
    "numeric said plainly": r"""
= | 1.6e-19 | #### 1.6*10^-19 C
= | 100 | The final answer is 100 m. I hope it is correct.
! | 64 | **Answer:** $64,000
""",
    "choice said plainly": r"""
= | B | B is the answer.
~ | B | B is not the answer.
""",
    "math several answers": r"""
~ | 4 | Either it is \boxed{2} or it could be that it is \boxed{4}
~ | 4 | Either it is \boxed{2}⏎⏎or⏎⏎it is \boxed{4}
~ | 4 | Either it is \boxed{2}, if so, or then it is \boxed{4}
~ | 4 | The answer is \boxed{2}.⏎⏎Or it is \boxed{4}.
~ | 4 | It is \boxed{2}.⏎⏎Alternatively, it is \boxed{4}.
~ | 4 | \boxed{2} or maybe \boxed{4}
~ | 4 | \boxed{2} or, in the other case, \boxed{4}
= | 2, 4 | The answer is \boxed{2}.⏎⏎Or it is \boxed{4}.
= | 0.5 | \boxed{\frac12} or equivalently \boxed{0.5}
= | 4 | The roots number \boxed{2}: x=1 or x=2. Therefore the answer is \boxed{4}
= | 4 | He takes 1 or 2: \boxed{3}.⏎⏎With one or two more that is \boxed{4}
= | 4 | Step 1 gives \boxed{2}. Step 2 adds two more, so the answer is \boxed{4}
? | 4 | The answer is 2 or the answer is 4.
? | 4 | #### 2⏎or⏎#### 4
? | 4 | Answer: 2⏎⏎or⏎⏎Answer: 4
? | 4 | Perhaps the answer is 4
? | 4 | If the answer is 4
? | 4 | I am not sure the answer is 4
? | 4 | I don't think the answer is 4
? | 4 | It is wrong that the answer is 4
= | 4 | It can't be 3, so the answer is 4
= | 4 | If x is 3, the answer is 4
= | 4 | Not bad. The answer is 4
= | 4 | There are 3 or so the answer is 4
= | 4 | Will it do or not⏎#### 4
= | 4 | Perhaps you did not see it: she has 4.⏎The answer is 4
""",
    "choice several answers": r"""
= | B | A is not right. The answer is B
? | B | Maybe the answer is B
? | B | The answer is A or maybe the answer is B
""",
    "choice as models write": r"""
= | B | Answer: B
= | B | Answer: (B) 5 and 6
= | B | Answer: B) 5 or 6
= | B | Answer: B. red and blue
= | B | **Answer:** (B)
= | B | The correct answer is (B): Paris.
= | B | The correct answer is **B) Paris**.
= | B | The answer is B: "Paris"
= | B | The answer is option (B).
= | B | So the correct option is (B).
= | B | Therefore, the correct answer is B.
= | B | Final answer: B
= | B | $\boxed{\text{(B)}}$
= | B | $\boxed{\mathrm{B}}$
= | B | \boxed{\text{B) Paris}}
= | B | \boxed{B: 12}
= | B | \boxed{(B)\ 12}
= | B | \boxed{\textbf{(B)}~12}
= | B | \boxed{\textbf{B}}
= | B | \boxed{\textbf{(B)}\,\frac{1}{2}}
= | B | B) Paris
= | B | Option B
= | B | The answer is B, since A is false.
= | B | The answer is B because the others are wrong.
= | B | Answer: B — Paris
= | B | Answer: B – Paris
= | B | Answer: B (Paris)
= | B | Answer: 'B'
= | B | ANSWER: B
= | b | Answer: B
= | E | The answer is E.
= | I | The answer is I.
= | A | The answer is A.
= | A | Answer: a
= | A | answer is a.
? | A | Answer: A or B
? | A | Answer: A/B
? | A | Answer: A & B
? | A | Answer: A, B, and C
? | A | Answer: A apple
? | A | Answer: An apple
? | A | Answer: a car
? | I | Answer: I'm not sure
? | I | Answer: I believe so
? | A | Answer: Neither A nor B
? | A | Answer: not A
? | A | Answer: It's not A
? | A | Answer: anything but A
? | A | Answer: A is incorrect
? | B | Answer: Between A and B
? | B | Answer: B vs C
? | B | Answer: (A) or (B)
? | B | Answer: I would say A or B
? | D | Answer: Dunno
? | C | Answer: Can't tell
? | C | Answer: C#
? | C | Answer: C-3PO
? | A | Answer: A-B
? | B | Answer: B+
? | B | Answer: B5
? | B | Answer: vitamin B
? | C | Answer: 25 C
~ | A | The answer is B, not A.
~ | A | The answer is B. A is incorrect.
= | C | After considering everything, the answer is C.
= | C | The answer is (C) because A and B are wrong.
= | C | Answer: C⏎⏎A is wrong. B is wrong.
= | C | **Answer: (C)**⏎Explanation: B is wrong.
= | C | <answer>(C)</answer>
= | C | Answer: C)
= | C | Answer: \(C\)
= | C | Answer: \text{C}
= | C | Answer: "C"
= | C | Answer: [C]
= | C | Answer: {C}
= | C | Answer: C.⏎
= | C | Answer: C. 3 or 4
= | C | Answer: (C) A and B
= | C | Answer: C) Both A and B
= | C | Answer: C. Neither A nor B
= | C | Answer: C. None of the above
= | C | The correct option is: C
= | C | Correct Answer: C) Paris
= | C | I'd go with C. The answer is C.
= | C | \boxed{C) 12}
= | C | \boxed{\text{C. Paris}}
= | C | \boxed{\textbf{(C) } 12}
= | C | Answer: C is correct
= | C | Answer: C is the right choice
= | C | Choice: C⏎Answer: C
! | C | Answer: D
! | C | Answer: (D) 12
? | C | Answer: C or D, depending
? | C | Answer: C? D?
? | C | Answer: Could be C
? | C | Answer: C and D
? | C | Answer: all of them
? | C | Answer: can't say
? | C | Answer: cat
? | C | Answer: Carbon
? | C | Answer: c++ is best
? | A | Answer: a and b are the same
? | A | Answer: A is for apple
? | A | Answer: A few
? | I | Answer: I am unsure
? | A | A cat sat on the mat.
? | B | Because of C.
""",
    "exact as models write": r"""
= | Paris | Answer: Paris
= | Paris | Answer: **Paris**
= | Paris | The answer is Paris.
= | Paris | \boxed{\text{Paris}}
! | Paris | Answer: paris
! | Paris | Answer: Paris, France
= | 3.0 | Answer: 3.0
= | a*b | Answer: a*b
= | x_1 | Answer: x_1
= | foo(bar) | Answer: `foo(bar)`
= | C++ | Answer: C++
= | U.S. | Answer: U.S.
= | $5 | Answer: $5
! | $5 | Answer: 5
""",
}
