"""What a provider call cost, in USD.

    book       base price × service tier × what the house has negotiated
    ├── own      a price written beside a deployment (it wins), or in an entry of `prices:`
    ├── listed   else the list prices bundled with genai-prices, by date, hour, tier and how much goes in
    ├── tiers    what a tier costs in relation to the standard one, where the list doesn't say
    ├── overlay  which of the house's entries hold for a call
    └── rate     exact arithmetic over disjoint kinds of token
    versions   what was negotiated, told by a price version
    capacity   what is paid by the hour, spread over what was done with it

Nothing is ever fetched: of genai-prices only the data and its own arithmetic are used, and a new price comes with a new version
of the package. Why this stands in infra, and what was measured: docs/decisions/0005-prices.md, 0023-price-overlay.md.
"""

from infra.prices.book import FREE, PriceBook, Priced, is_free
from infra.prices.listed import LISTED_AS

__all__ = ["FREE", "LISTED_AS", "PriceBook", "Priced", "is_free"]
