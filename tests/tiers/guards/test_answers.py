"""Facts of two answers, in whatever words."""

from __future__ import annotations

import pytest

from cache_core.tiers.guards.answers import LONGEST, Comparison, compare

RETURNS = "Unused items can be sent back within 30 days for a refund of the full price."
GIFT_CARD = (
    "Thirty days are the time to send back unused items; the price is refunded in full. "
    "It is best with an invoice. Your money comes back to your gift card within 5 days."
)
AGREE = [
    (RETURNS, "You have thirty days to send unused things back; we refund the whole price."),
    (
        "It costs €50.00 and takes 5-7 days.",
        "It takes five to seven days, and costs 50 EUR.",
    ),
    ("We open at 3 pm.", "Our doors open at 15:00."),
    (
        "Run `acmectl backup --full` first.",
        "Before anything else, acmectl backup --full is what you need.",
    ),
    ("Our shop in Vienna is closed on Sundays.", "On Sunday you find the Vienna shop closed."),
    ("The light of the X200 is red.", "When ready, red shines from the lamp that the X200 has."),
]
CONFLICT = [
    (RETURNS, RETURNS.replace("30", "14")),
    (RETURNS, "You have 30 weeks to send back what you have not used; we refund the whole price."),
    ("It costs 5 euros a month.", "You pay five euros per year for it."),
    ("Run acmectl backup --full first.", "Please start with acmectl backup --diff."),
    ("Our shop in Vienna is closed on Sundays.", "On Sunday the Zurich shop is closed."),
    ("Use https://acme.test/v2/hooks for it.", "Please use https://acme.test/v1/hooks."),
]
DOUBT = [
    (RETURNS, "Unused items can be sent back for a refund of the full price."),
    ("You can pay by invoice.", "It is not possible to pay by invoice."),
    ("Send the form before 3 pm.", "The form should be sent after 15:00."),
    ("The curry contains nuts.", "Our curry is without nuts."),
    ("Parents get paid leave.", "The leave that parents get is unpaid."),
    ("Choose the blue button in the menu of the app.", "Choose the red button in the menu of the app."),
    ("The Premium plan has it.", "It is in all our plans."),
    ("Der Versand dauert drei Tage.", "Es dauert drei Tage, bis das Paket kommt."),
    (RETURNS, RETURNS + " And so on." * LONGEST),
    ("You can change your booking for free.", "A booking can be changed for a fee."),
    ("You can cancel a booking, if it was made here.", "Cancelling bookings is possible at any time."),
    (RETURNS, RETURNS + " A fee applies."),
    (RETURNS, RETURNS.replace("for a refund of", "without a fee for")),
    ("Yes, the warranty covers damage by water.", "No, the warranty covers damage by water."),
    ("You need a passport, a photo and a birth certificate.", "You need a passport and a photo."),
    (RETURNS + " The invoice helps. Your money comes back to the card within 5 days.", GIFT_CARD),
    ("We pay for the return label.", "You pay for the return label."),
    ("You need a passport and a visa.", "You need a passport or a visa."),
    ("The jacket is in stock in your size.", "The jacket is out of stock in your size."),
    ("The meeting is in room A.", "The meeting is in room B."),
    ("All of our prices are in euros.", "All of our prices are in dollars."),
    ("The tenant pays the fee, and the landlord the repair.",
     "The landlord pays the fee, and the tenant the repair."),
    ("The link that we send works for an hour.", "We mail a link, which works for a day."),
    ("Choose the file, and type if a < b in it.", "Choose the file, and type if a > b in it."),
    ("Choose it, where x > 5, for your file.", "If x < 5 that is the one to take."),
    ("| plan | login |\n|---|---|\n| Basic | yes |", "| plan | login |\n|---|---|\n| Basic | no |"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(*pair, result) for result, pairs in (("agree", AGREE), ("conflict", CONFLICT),
                                           ("doubt", DOUBT)) for pair in pairs],
)  # fmt: skip
def test_facts_decide_whatever_the_words(one: str, other: str, expected: Comparison) -> None:
    """One fact in another's place is a conflict; one that is missing, or may be turned, a doubt."""
    assert compare(one, other) == expected
    assert compare(other, one) == expected
