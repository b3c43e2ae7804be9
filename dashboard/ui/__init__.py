"""Streamlit pages, their panels, and what all pages share."""
